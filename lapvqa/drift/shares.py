"""Shares of categories in two groups of patients: how far apart, and in which category.

Blocks are questions with one answer per row (which view, how long a report); a stream asks several
at once. P patients, C categories over all blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lapvqa.drift.permutation import Array, Groups, Statistic


@dataclass(frozen=True)
class Counts:
    """Weights of each category by patient [P, C]; ``blocks``: name -> its columns."""

    by_patient: Array
    names: Sequence[str]
    blocks: Mapping[str, slice]

    @property
    def statistic(self) -> Statistic:
        """The population stability index of any division of the patients, summed over blocks.

        Half a row is added to each category, so that an unseen one is no infinity.
        """
        total = self.by_patient.sum(axis=0)

        def psi(groups: Groups) -> Array:
            new = groups @ self.by_patient
            value = np.zeros(len(groups))
            for block in self.blocks.values():
                ours, theirs = _shares(new[:, block] + 0.5), _shares((total - new)[:, block] + 0.5)
                value += ((ours - theirs) * np.log(ours / theirs)).sum(axis=1)
            return value

        return psi

    def distance(self, block: str) -> Statistic:
        """The total variation distance of a block: the share that would have to be another."""
        counts = self.by_patient[:, self.blocks[block]]
        total = counts.sum(axis=0)

        def tv(groups: Groups) -> Array:
            new = groups @ counts
            value: Array = np.abs(_shares(new) - _shares(total - new)).sum(axis=1) / 2
            return value

        return tv

    def shares(self, in_window: NDArray[np.bool_]) -> dict[str, dict[str, tuple[float, float]]]:
        """Return block -> category -> share in the reference and in the window."""
        new = _shares_of(self.by_patient[in_window].sum(axis=0), self.blocks)
        old = _shares_of(self.by_patient[~in_window].sum(axis=0), self.blocks)
        return {
            name: {
                self.names[place]: (float(old[place]), float(new[place]))
                for place in range(block.start, block.stop)
            }
            for name, block in self.blocks.items()
        }


def count(
    answers: Mapping[str, NDArray[np.str_]], patients: NDArray[np.intp], weights: Array
) -> Counts:
    """Return what rows answer, by patient; ``answers``: block -> category of each row."""
    names: list[str] = []
    blocks: dict[str, slice] = {}
    columns = []
    size = int(patients.max()) + 1
    for block, values in answers.items():
        known, place = np.unique(values, return_inverse=True)
        counts = np.zeros((size, len(known)))
        np.add.at(counts, (patients, place), weights)
        blocks[block] = slice(len(names), len(names) + len(known))
        names += known.tolist()
        columns.append(counts)
    return Counts(np.concatenate(columns, axis=1), names, blocks)


def _shares(counts: Array) -> Array:
    sums = counts.sum(axis=-1, keepdims=True)
    return np.asarray(counts / np.where(sums > 0, sums, 1))


def _shares_of(counts: Array, blocks: Mapping[str, slice]) -> Array:
    shares = np.empty_like(counts)
    for block in blocks.values():
        shares[block] = _shares(counts[block])
    return shares
