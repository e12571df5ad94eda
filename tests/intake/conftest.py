"""Radiographs of every transfer syntax of the corpus, an archive for them, and those who send."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "dicom"))

from intake_parts import Desk, open_desk

NUMBER = 75


@dataclass(frozen=True)
class Film:
    """A file of the corpus, and what a reader makes of its pixels."""

    path: Path
    instance_uid: str
    study_uid: str
    syntax: str


@pytest.fixture(scope="session")
def films(corpus: Path) -> list[Film]:
    """75 radiographs, the smallest of each transfer syntax in turn."""
    from lapvqa.intake.instance import read_names

    by_syntax: dict[str, list[Film]] = defaultdict(list)
    for path in sorted((corpus / "mimic-cxr").rglob("*.dcm"), key=lambda path: path.stat().st_size):
        names = read_names(path.read_bytes())
        film = Film(path, names.instance_uid, names.study_uid, names.syntax)
        by_syntax[names.syntax].append(film)
    turns = [
        film
        for rank in range(NUMBER)
        for own in by_syntax.values()
        for film in own[rank : rank + 1]
    ]
    return turns[:NUMBER]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """An empty archive with its inbox open for `receive`."""
    with open_desk(tmp_path, "receive") as opened:
        yield opened
