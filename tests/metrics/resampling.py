"""Interval and difference in one call, for tests of statistics."""

from __future__ import annotations

from collections.abc import Sequence

from lapvqa.metrics.bootstrap import Estimate, Measures, Statistic, draw_values, interval
from lapvqa.metrics.paired import Difference, from_draws


def clustered_interval(
    statistic: Statistic, clusters: Sequence[str], *, draws: int, confidence: float, seed: int
) -> Estimate | list[Estimate]:
    """The observed value and its percentile interval; a list if a draw has several values."""
    values = draw_values(statistic, clusters, draws=draws, seed=seed)
    if values.ndim == 1:
        return interval(values, confidence=confidence)
    return [interval(column, confidence=confidence) for column in values.T]


def compare(
    first: Measures, second: Measures, *, draws: int, confidence: float, seed: int
) -> dict[str, Difference]:
    """The difference of two systems on the same draws."""
    values = [
        draw_values(system.statistic, system.patients, draws=draws, seed=seed)
        for system in (first, second)
    ]
    patients = len(set(first.patients))
    return from_draws(first.names, *values, patients=patients, confidence=confidence)
