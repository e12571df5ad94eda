"""A copy of the package with a worked example of docs/extending.md in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def copy_package(repository: Path, root: Path) -> None:
    """Copy the code and its stages to ``root``, where an example may change them.

    What is compiled already comes along, to be used where a file stays as it is: its time is
    copied too. What another process is just writing there does not.
    """
    half_written = shutil.ignore_patterns("*.pyc.*", "*.tmp.*")
    for name in ("lapvqa", "tasks", "flows"):
        shutil.copytree(repository / name, root / name, ignore=half_written)
    shutil.copytree(repository / "params", root / "params")
    for name in ("dvc.yaml", ".dvcignore", "tombstones.json", "sealed.json"):
        shutil.copy(repository / name, root)


def insert(path: Path, lines: str, *, before: str) -> None:
    """Insert the lines that the document shows before a text that occurs once in the file."""
    text = path.read_text()
    assert text.count(before) == 1, (path.name, before)
    path.write_text(text.replace(before, lines + before))


def replace(path: Path, line: str, *, start: str) -> None:
    """Put the line that the document shows in place of the only one that begins with ``start``."""
    lines = path.read_text().splitlines(keepends=True)
    (place,) = (number for number, old in enumerate(lines) if old.startswith(start))
    lines[place] = line
    path.write_text("".join(lines))


def run(root: Path, *arguments: str) -> str:
    """Run ``python -m`` of the copied package in ``root``; return what it printed."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(root),
        "DVC_NO_ANALYTICS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=root, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_shown(repository: Path, *, files: Sequence[Path], lines: Sequence[str]) -> None:
    """Hold the document's code blocks against the files and lines that the test has run."""
    blocks = (repository / "docs" / "extending.md").read_text().split("```")[1::2]
    contents = [block.partition("\n")[2] for block in blocks]
    for text in (*(path.read_text() for path in files), *lines):
        assert text in contents, text
