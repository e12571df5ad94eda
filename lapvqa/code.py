"""Which code decides a result: the modules that a stage reaches by its imports.

Read from the source alone; nothing is imported. ``closure`` serves the test that holds dvc.yaml's
lists against the truth, ``digest`` every store of unfinished or finished work. A digest is of the
parsed code, so that a comment, a docstring or another line break makes nobody repeat a training of
days, or read an archive of terabytes again.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]

FOUNDATION = frozenset(
    f"lapvqa.{name}"
    for name in (
        "code", "errors", "extras", "job", "machine", "params", "project", "recorder", "runtime",
        "schemas", "stage", "storage", "yaml_faults",
    )
)  # fmt: skip
"""Contracts that all stages share. They decide the form of a result, which is checked wherever it
is read, and never its content; were they dependencies, every edit would make everything stale."""

WITHOUT_EFFECT = frozenset(
    {
        "lapvqa.pretrain.memory",  # plans memory, explains that it ran out
        "lapvqa.pretrain.samples",  # writes reports for a person to look at
    }
)
"""Modules that stages reach and that change nothing of what they write."""


def closure(*modules: str) -> frozenset[str]:
    """Return the modules of lapvqa that ``modules`` reach, themselves included.

    An import counts wherever it stands, except under ``if TYPE_CHECKING``; so does the full name of
    a module as a text, which is how a process or a plug-in is started (a name put together at run
    time is not seen). A package's ``__init__`` counts if it holds more than its docstring.
    FOUNDATION and WITHOUT_EFFECT are neither in it nor followed.
    Raises ValueError for a module that does not exist, or that is itself left out.
    """
    for name in modules:
        if source(name) is None or is_left_out(name):
            raise ValueError(f"expected a module of lapvqa that decides a result, found {name!r}")
    reached: set[str] = set()
    pending = list(modules)
    while pending:
        name = pending.pop()
        if name not in reached and name not in FOUNDATION | WITHOUT_EFFECT:
            reached.add(name)
            pending.extend(_mentioned(name))
    return frozenset(name for name in reached if not is_left_out(name))


@cache
def digest(*modules: str) -> str:
    """Return the sha256 of the code that ``modules`` reach; see ``closure``.

    Left out, because no result depends on them: comments, docstrings, formatting, the order of
    imports, and imports for types only.
    """
    state = hashlib.sha256()
    for name in sorted(closure(*modules)):
        state.update(f"{name}\0".encode() + _told(_parsed(name)) + b"\0")
    return state.hexdigest()


@cache
def _told(module: ast.Module) -> bytes:
    return repr(_essence(module)).encode()


def digest_of_all() -> str:
    """Return the sha256 of every file of the code as it stands, which takes hundredths of a second.

    For what is made again at little cost: it changes with a comment, and with what decides nothing.
    """
    state = hashlib.sha256()
    for path in sorted((_ROOT / "lapvqa").rglob("*.py")):
        state.update(f"{path.relative_to(_ROOT)}\0".encode() + path.read_bytes())
    return state.hexdigest()


def source(module: str) -> Path | None:
    """Return the file of a module of lapvqa; None if there is none."""
    path = _ROOT.joinpath(*module.split("."))
    files = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in files if file.is_file()), None)


@cache
def _parsed(name: str) -> ast.Module:
    file = source(name)
    assert file is not None
    return ast.parse(file.read_bytes())


def is_left_out(name: str) -> bool:
    """Tell whether a module counts for nothing: by its name, or since it is only a docstring."""
    return name in FOUNDATION | WITHOUT_EFFECT or not _statements(_parsed(name).body)


def _mentioned(name: str) -> list[str]:
    """Return the modules that a module imports or names, and the packages around them."""
    return _modules_in(_parsed(name), tuple(_package(name)))


@cache
def _modules_in(tree: ast.Module, package: tuple[str, ...]) -> list[str]:
    modules = []
    for mention in set(_mentions(tree, list(package))):
        parts = mention.split(".")
        if parts[0] == "lapvqa" and source(mention) is not None:
            modules += [".".join(parts[:end]) for end in range(2, len(parts) + 1)]
    return modules


def _package(name: str) -> list[str]:
    """Return the parts of the package that relative imports of a module start from."""
    file, parts = source(name), name.split(".")
    return parts if file is not None and file.name == "__init__.py" else parts[:-1]


def _mentions(node: ast.AST, package: list[str]) -> Iterator[str]:
    """Yield what may be a module's name: of imports, and every text that is no docstring."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        start = package[: len(package) + 1 - node.level] if node.level else []
        origin = ".".join([*start, *filter(None, [node.module])])
        yield origin
        yield from (f"{origin}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    for _, field in ast.iter_fields(node):
        children = _statements(field) if isinstance(field, list) else [field]
        for child in children:
            if isinstance(child, ast.AST):
                yield from _mentions(child, package)


def _statements(nodes: list[Any]) -> list[Any]:
    """Return ``nodes`` without statements of no effect: docstrings, also of attributes, and types.

    An ``if TYPE_CHECKING`` is replaced by what stands in its ``else``.
    """
    kept: list[Any] = []
    for node in nodes:
        if isinstance(node, ast.If) and _asks_for_types(node.test):
            kept += _statements(node.orelse)
        elif not (
            (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
            or (isinstance(node, ast.ImportFrom) and node.module == "__future__")
        ):
            kept.append(node)
    return kept


def _asks_for_types(test: ast.expr) -> bool:
    name = getattr(test, "attr", None) or getattr(test, "id", None)
    return name == "TYPE_CHECKING"


def _essence(value: Any) -> Any:
    """Return parsed code as nested tuples: no places, no empty fields, imports in order.

    ``ast.dump`` would do, but writes empty fields in one version of Python and not in the next.
    """
    if isinstance(value, ast.AST):
        fields = ((name, _essence(field)) for name, field in ast.iter_fields(value))
        kept = tuple((name, field) for name, field in fields if field not in (None, ()))
        return (type(value).__name__, *kept)
    if isinstance(value, list):
        groups = groupby(_statements(value), key=_is_import)
        return tuple(
            _essence(node)
            for is_import, group in groups
            for node in (sorted(group, key=ast.unparse) if is_import else group)
        )
    return repr(value) if value is not None else None


def _is_import(node: Any) -> bool:
    """Tell whether a node is an import, or one of its names: neighbours are sorted."""
    return isinstance(node, ast.Import | ast.ImportFrom | ast.alias)
