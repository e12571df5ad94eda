"""The null distribution of any statistic of two groups of patients, by permuting the patients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
Groups = NDArray[np.float64]
"""[B, P]: 1 where a patient is in the window, 0 where in the reference."""

Statistic = Callable[[Groups], Array]
"""Maps B ways to divide P patients to B values."""

_ENOUGH, _BATCH = 25, 250
_POWER = 0.8


@dataclass(frozen=True)
class Test:
    """What was seen, its p, and what the null distribution says would be seen 4 times of 5."""

    value: float
    p: float
    draws: int
    null: Array

    def seen_from(self, level: float) -> float:
        """Return the true value that would be found at ``level`` with a power of .8.

        The null's upper quantile by its first three moments, since few draws reach that far.
        """
        mean, deviation = float(self.null.mean()), float(self.null.std())
        if deviation == 0:
            return mean
        skew = float(np.clip(stats.skew(self.null), -3, 3))
        upper = float(stats.pearson3.ppf(1 - level, skew))
        return mean + deviation * (upper + float(stats.norm.ppf(_POWER)))


def permute(
    statistic: Statistic,
    in_window: NDArray[np.bool_],
    rng: np.random.Generator,
    *,
    draws: int,
    strata: NDArray[np.intp] | None = None,
) -> Test:
    """Permute who is in the window; p is the share of draws whose value is no smaller.

    Stops early where p is clearly no alarm, and p stays exact: with the 25th value that is no
    smaller, at draw n, p is 25 / n (Besag and Clifford, Biometrika 78 (1991)). ``strata`` [P]:
    patients change places only within their stratum.
    """
    groups = in_window.astype(np.float64)
    seen = float(statistic(groups[None])[0])
    # Equal values differ in their last bits by the order of summation.
    bound = seen - 1e-9 * max(1.0, abs(seen)) * (seen != 0)
    values: list[Array] = []
    exceeding = done = 0
    while done < draws:
        size = min(_BATCH, draws - done)
        found = statistic(_shuffled(groups, size, rng, strata))
        values.append(found)
        places = np.flatnonzero(found >= bound)
        if exceeding + len(places) >= _ENOUGH:
            last = done + int(places[_ENOUGH - exceeding - 1]) + 1
            return Test(seen, _ENOUGH / last, last, np.concatenate(values))
        exceeding, done = exceeding + len(places), done + size
    return Test(seen, (exceeding + 1) / (draws + 1), draws, np.concatenate(values))


def _shuffled(
    groups: Groups, size: int, rng: np.random.Generator, strata: NDArray[np.intp] | None
) -> Groups:
    if strata is None:
        return rng.permuted(np.tile(groups, (size, 1)), axis=1)
    drawn = np.empty((size, groups.shape[-1]))
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        drawn[:, rows] = rng.permuted(np.tile(groups[rows], (size, 1)), axis=1)
    return drawn
