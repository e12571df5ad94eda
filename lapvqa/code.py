"""Which code decides a result: the modules that a stage reaches by its imports.

Read from the source alone, nothing is imported. ``closure`` serves the test that holds dvc.yaml's
lists against the truth; ``digest`` serves every store of unfinished or finished work. A digest is
of the parsed code without docstrings: a comment, a docstring or another line break costs nobody a
training of days, or an archive of terabytes.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]

FOUNDATION = frozenset(
    f"lapvqa.{name}"
    for name in (
        "code", "errors", "job", "machine", "params", "project", "recorder", "runtime", "schemas",
        "stage", "storage",
    )
)  # fmt: skip
"""Contracts that all stages share. They decide the form of a result, which is checked wherever it
is read, and never its content; were they dependencies, every edit would make everything stale."""

WITHOUT_EFFECT = frozenset(
    {
        "lapvqa.pretrain.memory",  # plans memory, explains its lack
        "lapvqa.pretrain.samples",  # shows reports as they are written now
    }
)
"""Modules that stages reach and that change nothing of what they write."""


def closure(*modules: str) -> frozenset[str]:
    """Return the modules of lapvqa that ``modules`` reach, themselves included.

    An import counts wherever it stands, but for ``if TYPE_CHECKING``; so does the name of a module
    as a text, which is how a process or a plug-in is started. A package's ``__init__`` counts if it
    holds more than its docstring. FOUNDATION and WITHOUT_EFFECT are neither in it nor followed.
    Raises ValueError for a module that is not there.
    """
    reached: set[str] = set()
    pending = list(modules)
    while pending:
        name = pending.pop()
        if name in reached or name in FOUNDATION or name in WITHOUT_EFFECT:
            continue
        if source(name) is None:
            raise ValueError(f"expected a module of lapvqa, found {name!r}")
        reached.add(name)
        pending.extend(_mentioned(name))
    return frozenset(name for name in reached if not is_bare(name))


@cache
def digest(*modules: str) -> str:
    """Return the sha256 of the code that ``modules`` reach, docstrings and comments left out."""
    state = hashlib.sha256()
    for name in sorted(closure(*modules)):
        state.update(f"{name}\0{_essence(_parsed(name))!r}\0".encode())
    return state.hexdigest()


def source(module: str) -> Path | None:
    """Return the file of a module of lapvqa; None if there is none."""
    path = _ROOT.joinpath(*module.split("."))
    files = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in files if file.is_file()), None)


def is_bare(module: str) -> bool:
    """Tell whether a module holds nothing but a docstring."""
    return not _code(_parsed(module).body)


def _mentioned(name: str) -> Iterator[str]:
    """Yield the modules that a module imports or names, and the packages around them."""
    for mention in _mentions(_without_type_checking(_parsed(name))):
        parts = mention.split(".")
        if parts[0] == "lapvqa" and source(mention) is not None:
            yield from (".".join(parts[:end]) for end in range(2, len(parts) + 1))


def _mentions(nodes: Iterator[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _without_type_checking(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(node, ast.If) and child in node.body and _asks_for_types(node.test):
            continue
        yield from _without_type_checking(child)


def _asks_for_types(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


@cache
def _parsed(name: str) -> ast.Module:
    file = source(name)
    assert file is not None
    return ast.parse(file.read_bytes())


def _code(body: list[ast.stmt]) -> list[ast.stmt]:
    """Return statements without those that are only a text: docstrings, of attributes too."""
    return [
        one
        for one in body
        if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
        and not (isinstance(one, ast.ImportFrom) and one.module == "__future__")
    ]


def _essence(value: Any) -> Any:
    """Return parsed code as nested tuples: no places, no docstrings, no empty fields.

    ``ast.dump`` would do, but writes empty fields in one version of Python and not in the next.
    """
    if isinstance(value, ast.AST):
        fields = ((name, _essence(field)) for name, field in ast.iter_fields(value))
        kept = tuple((name, field) for name, field in fields if field not in (None, ()))
        return (type(value).__name__, *kept)
    if isinstance(value, list):
        if value and all(isinstance(one, ast.stmt) for one in value):
            value = _code(value)
        return tuple(_essence(one) for one in value)
    return repr(value) if value is not None else None
