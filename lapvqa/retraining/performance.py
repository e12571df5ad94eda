"""Whether the champion has become worse on new patients: shown beyond chance, and worth the name.

The two values come from different patients, so their errors add up.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

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
