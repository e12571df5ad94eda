"""Which code decides a result: what an import is, what changes a digest and what does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lapvqa import code

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write modules of a package of its own, given as name=source; dots are double underscores."""
    monkeypatch.setattr(code, "_ROOT", tmp_path)

    def write_modules(**sources: str) -> None:
        for name, text in sources.items():
            path = tmp_path.joinpath("lapvqa", *name.split("__")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        forget()

    yield write_modules
    forget()


def forget() -> None:
    code.digest.cache_clear()
    code._parsed.cache_clear()


def write_package(folder: Path, name: str, text: str) -> None:
    path = folder / "lapvqa" / name / "__init__.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    forget()


def reached(*modules: str) -> set[str]:
    return {
        name.removeprefix("lapvqa.") for name in code.closure(*(f"lapvqa.{m}" for m in modules))
    }


IMPORTS = {
    "whole": "import lapvqa.b",
    "renamed": "import lapvqa.b as other",
    "from the package": "from lapvqa import b",
    "of a name": "from lapvqa.b import X",
    "relative": "from .b import X",
    "relative module": "from . import b",
    "in a function": "def f():\n    from lapvqa.b import X\n    return X",
    "in a method": "class A:\n    def f(self):\n        import lapvqa.b",
    "under a condition": "import os\nif os.name == 'posix':\n    import lapvqa.b",
    "where types are not checked": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n    import lapvqa.b"
    ),
    "as a text": "WORKER = 'lapvqa.b'",
    "as an argument": "start(['python', '-m', 'lapvqa.b'])",
}


@pytest.mark.parametrize("text", IMPORTS.values(), ids=IMPORTS)
def test_an_import_counts_wherever_it_stands(write: Write, text: str) -> None:
    write(a=text, b="X = 1\nfrom lapvqa import c", c="Y = 2", d="Z = 3")
    assert reached("a") == {"a", "b", "c"}
    assert reached("b") == {"b", "c"}
    assert reached("d", "b") == {"b", "c", "d"}


NO_IMPORTS = {
    "for types": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from lapvqa.b import X",
    "for types, by attribute": "import typing\nif typing.TYPE_CHECKING:\n    import lapvqa.b",
    "in a docstring": '"""lapvqa.b"""\nX = 1',
    "in a docstring of an attribute": 'X = 1\n"""lapvqa.b"""',
    "in a longer text": "X = 'see lapvqa.b'",
    "another package": "import other.lapvqa.b\nfrom b import X",
    "in a comment": "X = 1  # lapvqa.b",
}


@pytest.mark.parametrize("text", NO_IMPORTS.values(), ids=NO_IMPORTS)
def test_what_is_no_import_does_not_count(write: Write, text: str) -> None:
    write(a=text, b="X = 1")
    assert reached("a") == {"a"}


def test_a_package_counts_if_it_holds_more_than_its_docstring(write: Write, tmp_path: Path) -> None:
    write(a="from lapvqa.room.b import X", room__b="X = 1", room__c="Y = 1")
    write_package(tmp_path, "room", '"""A room."""\n')
    assert reached("a") == {"a", "room.b"}
    write_package(tmp_path, "room", '"""A room."""\nfrom .c import Y\n')
    assert reached("a") == {"a", "room", "room.b", "room.c"}


def test_modules_that_import_each_other_are_reached_once(write: Write) -> None:
    write(a="import lapvqa.b", b="import lapvqa.a")
    assert reached("a") == reached("b") == {"a", "b"}


def test_the_foundation_and_what_has_no_effect_are_not_followed(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(a="import lapvqa.storage, lapvqa.note", storage="import lapvqa.b", b="X = 1",
          note="import lapvqa.b")  # fmt: skip
    assert reached("a") == {"a", "note", "b"}
    monkeypatch.setattr(code, "WITHOUT_EFFECT", frozenset({"lapvqa.note"}))
    assert reached("a") == {"a"}


@pytest.mark.parametrize("name", ["lapvqa.nothing", "lapvqa.storage", "lapvqa.room", "numpy"])
def test_a_module_that_decides_nothing_is_refused(write: Write, tmp_path: Path, name: str) -> None:
    """Of an unknown module, or one that is left out, a digest would cover nothing."""
    write(a="X = 1", storage="X = 1")
    write_package(tmp_path, "room", '"""A room."""\n')
    for ask in (code.closure, code.digest):
        with pytest.raises(ValueError, match=f"that decides a result, found '{name}'"):
            ask("lapvqa.a", name)


TEXT = '''"""Stage."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lapvqa.b import X, Z

if TYPE_CHECKING:
    from lapvqa.c import Y

LIMIT = 10
"""So many."""


def f(x: int, *, scale: float = 1.5) -> float:
    """Scale."""
    if x > LIMIT:
        return 0.0
    return x * scale
'''
WITHOUT_CONSEQUENCE = {
    "comment": ("LIMIT = 10", "# chosen by hand\nLIMIT = 10  # so many"),
    "docstring of the module": ('"""Stage."""', '"""The stage."""'),
    "docstring of a function": ('    """Scale."""\n', ""),
    "docstring of an attribute": ('"""So many."""', '"""At most so many."""'),
    "line breaks": ("(x: int, *, scale: float = 1.5)", "(\n    x: int, *, scale: float = 1.5,\n)"),
    "quotes and brackets": ("return x * scale", "return (x * scale)"),
    "order of imports": ("import os\nfrom typing import TYPE_CHECKING\n",
                         "from typing import TYPE_CHECKING\nimport os\n"),
    "order of names": ("import X, Z", "import Z, X"),
    "imports for types": ("from lapvqa.c import Y", "from lapvqa.d import W"),
}  # fmt: skip
WITH_CONSEQUENCE = {
    "constant": ("LIMIT = 10", "LIMIT = 11"),
    "type of a constant": ("LIMIT = 10", "LIMIT = 10.0"),
    "default": ("scale: float = 1.5", "scale: float = 1.25"),
    "operator": ("x > LIMIT", "x >= LIMIT"),
    "statement": ("    return x * scale", "    x += 1\n    return x * scale"),
    "statement gone": ("        return 0.0\n", "        pass\n"),
    "import": ("import X, Z", "import X as Z, Z as X"),
    "order of a statement and an import": ("import os\n", "os = 1\nimport os\n"),
}


def changed(write: Write, before: str, after: str) -> bool:
    assert before in TEXT
    first = code.digest("lapvqa.a")
    write(a=TEXT.replace(before, after))
    return code.digest("lapvqa.a") != first


@pytest.mark.parametrize(("before", "after"), WITHOUT_CONSEQUENCE.values(), ids=WITHOUT_CONSEQUENCE)
def test_an_edit_without_consequence_keeps_the_digest(
    write: Write, before: str, after: str
) -> None:
    write(a=TEXT, b="X = Z = 1", c="Y = 1", d="W = 1")
    assert not changed(write, before, after)


@pytest.mark.parametrize(("before", "after"), WITH_CONSEQUENCE.values(), ids=WITH_CONSEQUENCE)
def test_an_edit_of_what_is_computed_changes_the_digest(
    write: Write, before: str, after: str
) -> None:
    write(a=TEXT, b="X = Z = 1", c="Y = 1")
    assert changed(write, before, after)


def test_the_digest_covers_all_that_is_reached_and_nothing_else(write: Write) -> None:
    write(a="import lapvqa.b", b="X = 1", c="Y = 1")
    first = code.digest("lapvqa.a")
    write(c="Y = 2")
    assert code.digest("lapvqa.a") == first
    write(b="X = 2")
    assert code.digest("lapvqa.a") != first
    second = code.digest("lapvqa.a")
    write(a="import lapvqa.c as b", c="X = 2")  # the same code under another name
    assert code.digest("lapvqa.a") != second


def test_the_names_that_are_left_out_are_modules() -> None:
    for name in code.FOUNDATION | code.WITHOUT_EFFECT:
        assert code.source(name) is not None, name
