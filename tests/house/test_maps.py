"""Each package's docstring is the map of its folder."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HEADING = "Files, in the order in which data meets them:"
PACKAGES = sorted(
    path.parent.relative_to(Path(__file__).parents[2]).as_posix()
    for room in ("lapvqa", "tasks", "flows")
    for path in (Path(__file__).parents[2] / room).rglob("__init__.py")
)


def listed(docstring: str) -> list[str]:
    """Return the names that a map lists."""
    _, _, files = docstring.partition(HEADING)
    return re.findall(r"^ {4,}([a-z0-9_]+(?:\.py|/))(?=\s|$)", files, flags=re.MULTILINE)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_map_lists_its_folder(repository: Path, package: str) -> None:
    folder = repository / package
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()), clean=False)
    assert docstring is not None
    there = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
    there += [f"{path.parent.name}/" for path in folder.glob("*/__init__.py")]
    assert sorted(listed(docstring)) == sorted(there)
