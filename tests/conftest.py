"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The project's own folder."""
    return REPOSITORY


@pytest.fixture(scope="session")
def corpus() -> Path:
    """Real radiographs with real text; the only input a test may do without."""
    folder = Path(os.environ.get("LAPVQA_CORPUS", REPOSITORY.parent / "shared" / "corpus"))
    if not folder.is_dir():
        pytest.skip("the corpus of real radiographs is not here (set LAPVQA_CORPUS)")
    return folder
