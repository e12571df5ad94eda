"""A labelled image dataset as its reader hands it on: three splits, disjoint by patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from lapvqa.datasets.splits import lowest
from lapvqa.errors import SourceError, SplitLeakError

MAX_UNREADABLE_SHARE = 0.01
"""Above this share of images that are missing or broken, a result would be of another dataset."""

VALIDATE_SHARE = 0.125
"""Of the training patients; neither dataset publishes a validation split of its own."""


@dataclass(frozen=True)
class Rows:
    """Images of one split.

    ``images``: paths relative to the dataset's folder; ``samples``, ``patients``: keys;
    ``places``: where each is listed; ``targets`` int8 [n, L]: 1, 0, or -1 if not known.
    """

    images: tuple[str, ...]
    samples: tuple[str, ...]
    patients: tuple[str, ...]
    places: tuple[str, ...]
    targets: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.images)

    def select(self, keep: NDArray[np.bool_]) -> Rows:
        """Return the rows where ``keep`` [n] is true, order kept."""
        chosen = np.flatnonzero(keep)
        return Rows(
            images=tuple(self.images[i] for i in chosen),
            samples=tuple(self.samples[i] for i in chosen),
            patients=tuple(self.patients[i] for i in chosen),
            places=tuple(self.places[i] for i in chosen),
            targets=self.targets[chosen],
        )


@dataclass(frozen=True)
class ProbeDataset:
    """A labelled dataset in three splits; raises SplitLeakError or SourceError when made badly.

    ``left_out``: how many listed images no split holds, by reason.
    """

    name: str
    labels: tuple[str, ...]
    train: Rows
    validate: Rows
    test: Rows
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_disjoint(self)
        _check_filled(self)

    @property
    def splits(self) -> dict[str, Rows]:
        """The splits by name, in order."""
        return {"train": self.train, "validate": self.validate, "test": self.test}

    @property
    def images(self) -> tuple[str, ...]:
        """Paths of all images: train, validate, test."""
        return self.train.images + self.validate.images + self.test.images

    def check(self, readable: NDArray[np.bool_]) -> None:
        """Raise SourceError if more than 1 % of ``images`` are not ``readable`` [n]."""
        bad = np.flatnonzero(~readable)
        if len(bad) <= MAX_UNREADABLE_SHARE * len(readable):
            return
        places = self.train.places + self.validate.places + self.test.places
        raise SourceError(
            f"{self.name}: {len(bad)} of {len(readable)} listed images are missing or cannot be "
            f"read, more than {MAX_UNREADABLE_SHARE:.0%}; one is listed at {places[bad[0]]}",
            hint="unpack all of the dataset's archives below its folder, and check its disk",
        )

    def keep(self, readable: NDArray[np.bool_]) -> ProbeDataset:
        """Return the dataset without the images that are not ``readable`` [n]; see ``check``."""
        self.check(readable)
        return self._select(readable)

    @property
    def tested(self) -> NDArray[np.bool_]:
        """Return [n] which of ``images`` are the test's."""
        return np.arange(len(self.images)) >= len(self.train) + len(self.validate)

    def without_copies(self, copied: NDArray[np.bool_]) -> ProbeDataset:
        """Return the dataset without the ``copied`` [n], which training may not learn from."""
        if not copied.any():
            return self
        told = {**self.left_out, "film_of_test": int(copied.sum())}
        return replace(self._select(~copied), left_out=told)

    def _select(self, kept: NDArray[np.bool_]) -> ProbeDataset:
        ends = np.cumsum([len(self.train), len(self.validate)])
        train, validate, test = np.split(kept, ends)
        return replace(
            self,
            train=self.train.select(train),
            validate=self.validate.select(validate),
            test=self.test.select(test),
        )


def carve_validation(rows: Rows, *, share: float = VALIDATE_SHARE) -> tuple[Rows, Rows]:
    """Split rows into (train, validate) by patient: those with the lowest hashes validate.

    A pure function of the set of patients: the order of rows does not matter. Of two patients or
    more at least one is on each side.
    """
    chosen = lowest(rows.patients, share, "validate")
    validates = np.array([patient in chosen for patient in rows.patients], dtype=bool)
    return rows.select(~validates), rows.select(validates)


def _check_disjoint(dataset: ProbeDataset) -> None:
    splits = {name: set(rows.patients) for name, rows in dataset.splits.items()}
    for first, second in (("train", "validate"), ("train", "test"), ("validate", "test")):
        shared = splits[first] & splits[second]
        if shared:
            raise SplitLeakError(
                f"{dataset.name}: {len(shared)} patients stand in both {first} and {second}",
                hint="use the split files as published; do not mix releases of the dataset",
            )


def _check_filled(dataset: ProbeDataset) -> None:
    for name, rows in dataset.splits.items():
        if not len(rows):
            raise SourceError(
                f"{dataset.name}: expected images for {name}, found none",
                hint="check the dataset's csv and list files; they may be cut off",
            )


def refuse_duplicates(file: str, names: Sequence[str]) -> None:
    """Raise SourceError if a name is listed twice."""
    repeated = sum(number > 1 for number in Counter(names).values())
    if repeated:
        raise SourceError(
            f"{file}: expected each image once, found {repeated} listed more than once",
            hint="download the file again, or remove the repeated lines",
        )
