"""The toy project, made once and copied for each test."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import toy_project
from told_project import Told

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


@pytest.fixture(scope="session")
def told_template(tmp_path_factory: pytest.TempPathFactory) -> Told:
    told = Told(tmp_path_factory.mktemp("told"))
    told.start()
    told.run_all(1, rate=1.0, patients=["10000001"])
    told.run_all(2, rate=0.5, patients=["10000001", "10000002"])
    return told


@pytest.fixture
def told(told_template: Told, tmp_path: Path) -> Told:
    """A private copy of a project whose ledger tells of two pipeline runs."""
    root = tmp_path / "project"
    shutil.copytree(told_template.project.root, root, copy_function=shutil.copy2)
    copy = Told(root)
    copy.lock, copy.ids = dict(told_template.lock), dict(told_template.ids)
    return copy
