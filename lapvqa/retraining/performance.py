"""Whether the champion has become worse on new patients: shown beyond chance, and worth the name.

The two values come from different patients, so their errors add up.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lapvqa.evaluation.task import EvaluationTask
from lapvqa.metrics import replicates
from lapvqa.metrics.bootstrap import Measures, draw_values
from lapvqa.params import BootstrapParams

FEWEST = 30
"""Patients below which nothing is compared."""
LEVEL = 0.01
"""One-sided: an evaluation is asked for often, and each that errs costs a training."""


@dataclass(frozen=True)
class Measured:
    """A metric (higher is better), its standard error by patient, and the patients."""

    value: float
    error: float
    patients: int


@dataclass(frozen=True)
class Comparison:
    """The champion on the patients it was judged on, and on those who are new."""

    before: Measured
    now: Measured
    margin: float

    @property
    def error(self) -> float:
        """Standard error of the difference."""
        return math.hypot(self.before.error, self.now.error)

    @property
    def has_fallen(self) -> bool:
        """Tell whether it is worse by more than the margin, and beyond chance worse at all."""
        loss = self.before.value - self.now.value
        return loss > self.margin and loss > NormalDist().inv_cdf(1 - LEVEL) * self.error

    @property
    def visible(self) -> float:
        """The loss that would be seen 4 times of 5."""
        seen = NormalDist().inv_cdf(1 - LEVEL) + NormalDist().inv_cdf(0.8)
        return max(seen * self.error, self.margin)

    def words(self) -> str:
        """Say both values, and what loss could be seen."""
        return (
            f"{self.now.value:.3f} on {self.now.patients} new patients, {self.before.value:.3f} "
            f"before; a loss of {self.visible:.3f} would be seen"
        )

    def facts(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "visible": round(self.visible, 4)}


def compare(
    task: EvaluationTask, predictions: pa.Table, system: str, known: set[str],
    *, margin: float, common: BootstrapParams,
) -> Comparison | str:  # fmt: skip
    """Compare a system's primary metric on patients in ``known`` and on all others.

    Returns why not, in words, where one of the two is too few.
    """
    rows = replicates.rows_of(predictions, system)
    is_known = pc.is_in(rows["patient"], pa.array(sorted(known), pa.string()))
    parts = [rows.filter(is_known), rows.filter(pc.invert(is_known))]
    for part, which in zip(parts, ("judged before", "new"), strict=True):
        patients = len(set(part["patient"].to_pylist()))
        if patients < FEWEST:
            return f"{patients} {which} patients are labelled, {FEWEST} are needed"
    before, now = (_measured(task.measure(part), task.primary, common) for part in parts)
    return Comparison(before, now, margin)


def _measured(measures: Measures, metric: str, common: BootstrapParams) -> Measured:
    values = draw_values(
        measures.statistic, measures.patients, draws=common.bootstrap_draws, seed=common.seed
    )
    column = values[:, measures.names.index(metric)] if values.ndim > 1 else values
    error = float(np.nanstd(column[1:], ddof=1))
    return Measured(float(column[0]), error, len(set(measures.patients)))
