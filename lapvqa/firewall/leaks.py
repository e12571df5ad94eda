"""What training and a held-out set share: films, studies and patients known by their keys.

A leak is a pair (image of training, held-out image). Not all pairs are listed: of each image, on
either side, one witness is enough to say that it must go, or that it is known.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lapvqa.firewall.held_out import HeldOut

Reason = Literal["film", "edited copy", "study", "report", "patient"]
REASONS: tuple[Reason, ...] = ("film", "edited copy", "study", "report", "patient")
"""The most direct one first: it is the one that is told."""


@dataclass(frozen=True)
class Training:
    """The images that would be learnt from, as columns; ``places``: rows of images.parquet."""

    table: pa.Table
    places: NDArray[np.int64]

    def column(self, name: str, splits: Sequence[str]) -> list[str | None]:
        """Return a column's values, None where the image is of none of ``splits``."""
        pairs = zip(self.table[name].to_pylist(), self.table["split"].to_pylist(), strict=True)
        return [value if split in splits else None for value, split in pairs]


@dataclass(frozen=True)
class Leak:
    """An image of training (its row) that a held-out image (its place) has something of."""

    training: int
    held_out: int
    reason: Reason
    score: float | None = None

    @property
    def rank(self) -> tuple[int, float, int, int]:
        """The order in which leaks are told: direct ones first, then by score, then by place."""
        return REASONS.index(self.reason), -(self.score or 0), self.training, self.held_out


def by_keys(training: Training, held: HeldOut) -> Iterator[Leak]:
    """Yield the leaks that digests of pixels and the archive's keys show."""
    columns: tuple[tuple[Reason, str, Sequence[str | None]], ...] = (
        ("film", "pixels_sha256", held.digests),
        ("film", "decoded_sha256", held.decoded),
        ("study", "study_key", held.studies),
        ("patient", "patient_key", held.patients),
    )
    for reason, name, values in columns:
        yield from _shared(training.column(name, held.held_from), values, reason)


def of_patients(leaks: Iterable[Leak], training: Training, held: HeldOut) -> Iterator[Leak]:
    """Yield the other images of a patient who stands on both sides under two keys.

    A film on both sides is one patient's, whatever the keys say: all of the patient's images go.
    """
    patients = training.column("patient_key", held.held_from)
    images_of = _places(patients)
    tested_of = _places(held.patients)
    for leak in sorted(leaks, key=lambda leak: leak.rank):
        if leak.reason not in ("film", "edited copy"):
            continue
        ours, theirs = patients[leak.training], held.patients[leak.held_out]
        if ours == theirs:
            continue
        known = replace(leak, reason="patient")
        yield from (replace(known, training=row) for row in images_of.pop(ours, []))
        yield from (replace(known, held_out=place) for place in tested_of.pop(theirs, []))


def first_by(leaks: Iterable[Leak], side: Literal["training", "held_out"]) -> dict[int, Leak]:
    """Return the leak to tell of each image of one side."""
    told: dict[int, Leak] = {}
    for leak in sorted(leaks, key=lambda leak: leak.rank):
        told.setdefault(getattr(leak, side), leak)
    return told


def _shared(
    ours: Sequence[str | None], theirs: Sequence[str | None], reason: Reason
) -> Iterator[Leak]:
    first_ours = {value: row for row, value in reversed(list(enumerate(ours)))}
    first_theirs = {value: place for place, value in reversed(list(enumerate(theirs)))}
    score = 1.0 if reason == "film" else None
    for row, value in enumerate(ours):
        if value is not None and value in first_theirs:
            yield Leak(row, first_theirs[value], reason, score)
    for place, value in enumerate(theirs):
        if value is not None and value in first_ours:
            yield Leak(first_ours[value], place, reason, score)


def _places(values: Sequence[Hashable]) -> dict[Hashable, list[int]]:
    places: dict[Hashable, list[int]] = {}
    for place, value in enumerate(values):
        if value is not None:
            places.setdefault(value, []).append(place)
    return places
