"""The toy project, made once and copied for each test."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import toy_project

from lapvqa.project import Project


@pytest.fixture
def dvc() -> Callable[..., str]:
    return toy_project.run_dvc


@pytest.fixture
def toy(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A private copy of the toy project, as a finished run left it."""
    root = tmp_path / "project"
    shutil.copytree(toy_project.made(tmp_path_factory), root)
    return Project(root)
