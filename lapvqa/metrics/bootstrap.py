"""Percentile intervals from resampled patients (cluster bootstrap).

Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), sections 8.2 and 13.3;
Field & Welsh, "Bootstrapping clustered data", JRSS B 69 (2007): whole clusters are drawn with
replacement, as many as there are, and every sample counts as often as its cluster was drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
"""Weights ``[draws, samples]`` -> values ``[draws]`` or ``[draws, k]``; NaN where undefined."""

MAX_UNDEFINED_SHARE = 0.05
"""Above this share of undefined draws no interval is given.

A class that only one patient shows is absent from 37 % of the draws, and the rest show no
variation between patients: a percentile interval of them would be far too narrow. 5 % of the
draws miss a class that three patients show.
"""

MIN_PATIENTS = 6
"""Fewer are not resampled: there is no interval and no p.

One patient is the same in every draw (an interval of width 0), and two or three who agree in sign
agree in every draw (the least p there is). An exact sign test says what n patients who all agree
can show at most: p = 2 ** (1 - n), 0.5 of two and 0.031 of six, the first below 0.05.
"""

_ROUNDING = 1e-12
"""A statistic that is the same in every draw may differ in its last bits."""

_CHUNK_BYTES = 16 * 2**20


class Estimate(NamedTuple):
    """A value with its interval; None where undefined."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Measures:
    """The metrics of one system: ``statistic(weights [D, n]) -> [D, k]``, k = len(names).

    ``samples`` and ``patients`` name the n weighted samples; ``undefined`` gives, for metrics
    that have no value here, the reason.
    """

    names: tuple[str, ...]
    samples: tuple[str, ...]
    patients: tuple[str, ...]
    statistic: Statistic
    undefined: Mapping[str, str] = field(default_factory=dict)


def draw_values(
    statistic: Statistic, clusters: Sequence[str], *, draws: int, seed: int
) -> NDArray[np.float64]:
    """Return the statistic on the observed samples (row 0) and on each draw: ``[1 + draws, ...]``.

    Two statistics called with the same clusters and seed see the same draws, so their rows may be
    subtracted (paired comparison). Row 0 alone with fewer than MIN_PATIENTS clusters. Memory: a few
    chunks of 16 MiB.
    """
    if not clusters:
        raise ValueError("expected at least one sample, found none")
    names, cluster = np.unique(np.asarray(clusters), return_inverse=True)
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK_BYTES // (8 * len(cluster)))
    values = [_evaluate(statistic, np.ones((1, len(cluster))))]
    for start in range(0, draws if len(names) >= MIN_PATIENTS else 0, rows):
        counts = [_draw(generator, len(names)) for _ in range(min(rows, draws - start))]
        values.append(_evaluate(statistic, np.stack(counts)[:, cluster]))
    return np.concatenate(values)


def interval(values: Array, *, confidence: float) -> Estimate:
    """Turn ``[observed, draw 1, draw 2, ...]`` into an Estimate.

    Undefined draws are left out; see MAX_UNDEFINED_SHARE. An interval that excludes the observed
    value is none: the draws are then biased by more than they vary, as those of a calibration
    error of few patients are.
    """
    observed, draws = values[0], values[1:]
    if not np.isfinite(observed):
        return Estimate(None, None, None)
    defined = draws[np.isfinite(draws)]
    if len(defined) < (1 - MAX_UNDEFINED_SHARE) * len(draws) or not len(defined):
        return Estimate(float(observed), None, None)
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    if not low - _ROUNDING <= observed <= high + _ROUNDING:
        return Estimate(float(observed), None, None)
    return Estimate(float(observed), float(low), float(high))


def _draw(generator: np.random.Generator, num_clusters: int) -> Array:
    chosen = generator.integers(0, num_clusters, size=num_clusters)
    return np.bincount(chosen, minlength=num_clusters).astype(np.float64)


def _evaluate(statistic: Statistic, weights: Array) -> Array:
    values = np.asarray(statistic(weights), dtype=np.float64)
    if values.shape[:1] != weights.shape[:1]:
        raise ValueError(
            f"expected one row of values per draw ({len(weights)}), found shape {values.shape}"
        )
    return values
