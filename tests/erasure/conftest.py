"""A small archive in MIMIC-CXR's layout, and a project that has read and tokenised it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lapvqa.project import Project

# Archives as tests/dicom makes them, the search of tests/e2e, the edits of tests/firewall.
sys.path += [str(Path(__file__).parents[1] / name) for name in ("dicom", "e2e", "firewall")]


@pytest.fixture(scope="session")
def read(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archive and project that tests copy."""
    from small_project import new_project, write_archive

    root = tmp_path_factory.mktemp("read")
    write_archive(root / "archive")
    new_project(root / "project", root / "archive")
    return root


@pytest.fixture
def project(read: Path, tmp_path: Path) -> Project:
    """A project of one's own over the archive of all, which stays as it is."""
    from small_project import copy_of

    return copy_of(read, tmp_path)


@pytest.fixture
def apart(read: Path, tmp_path: Path) -> Project:
    """A project with an archive of its own beside it, to be changed."""
    from small_project import bring_up_to_date, with_own_archive

    project = with_own_archive(read, tmp_path / "own")
    bring_up_to_date(project)  # the finished work belongs to an archive's place
    return project
