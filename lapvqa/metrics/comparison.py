"""Two systems on the same samples: the difference on the same draws of patients.

Each draw weighs the same patients for both, so what makes a sample hard for both cancels. The
two-sided p is the share of draws on the other side of 0, twice (Efron & Tibshirani 1993, ch. 16;
one is added to both counts, so p is never 0).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lapvqa.errors import SchemaError
from lapvqa.metrics.bootstrap import Array, Measures, draw_values, interval


@dataclass(frozen=True)
class Difference:
    """First system minus second; None where undefined."""

    value: float | None
    low: float | None
    high: float | None
    p_value: float | None


def compare(
    first: Measures, second: Measures, *, draws: int, confidence: float, seed: int
) -> dict[str, Difference]:
    """Return metric -> Difference; raises SchemaError unless samples and patients are the same."""
    same = (first.names, first.samples, first.patients) == (
        second.names, second.samples, second.patients,
    )  # fmt: skip
    if not same:
        raise SchemaError(
            f"expected two systems with the same metrics, samples and patients in one order, "
            f"found {len(first.samples)} and {len(second.samples)} samples that differ",
            hint="compare predictions of one test manifest; `lapvqa score` orders them by sample",
        )
    values = [
        draw_values(one.statistic, one.patients, draws=draws, seed=seed) for one in (first, second)
    ]
    return from_draws(first.names, *values, confidence=confidence)


def from_draws(
    names: tuple[str, ...], first: Array, second: Array, *, confidence: float
) -> dict[str, Difference]:
    """Return metric -> Difference of two results of ``draw_values`` on the same draws."""
    columns = (first - second).reshape(len(first), -1).T
    return {
        name: _difference(column, confidence=confidence)
        for name, column in zip(names, columns, strict=True)
    }


def _difference(column: Array, *, confidence: float) -> Difference:
    estimate = interval(column, confidence=confidence)
    if estimate.low is None:
        return Difference(*estimate, None)
    drawn = column[1:][np.isfinite(column[1:])]
    smaller = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return Difference(*estimate, min(1.0, 2 * float(smaller + 1) / (len(drawn) + 1)))
