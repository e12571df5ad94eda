"""Which project a command is about: the folder with dvc.yaml, here or above."""

from __future__ import annotations

from pathlib import Path

from lapvqa.errors import ConfigError
from lapvqa.project import Project


def find(start: Path | None = None) -> Project:
    """Return the layout of the project around ``start`` (default: the working folder).

    Raises ConfigError if there is none.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file():
            return Project(folder)
    raise ConfigError(
        f"expected dvc.yaml in {here} or a folder above it, found none",
        hint="change into the folder of your LAPVQA project (the clone), then run again",
    )
