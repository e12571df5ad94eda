"""Calibration: do cases given 0.7 turn out positive in 7 of 10?

Brier score: mean (probability - target)^2 (Brier 1950). Expected calibration error: bins of equal
width over [0, 1], closed on the right (the first also on the left); the mean over samples of
|mean probability - observed frequency| of their bin (Naeini et al., AAAI 2015; Guo et al.,
ICML 2017). ECE of a finite sample is above 0 even for a calibrated model, and a bootstrap draw
lies a little above the sample it was drawn from, and so does its interval (docs/metrics.md):
compare systems, do not read it as an absolute.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lapvqa.errors import SchemaError
from lapvqa.metrics.auc import UNKNOWN
from lapvqa.metrics.bootstrap import Array
from lapvqa.metrics.panel import Panel, class_names, class_reasons, weighted_ratio, with_mean

NUM_BINS = 15
"""As Guo et al."""

BINS = f"{NUM_BINS} of equal width: [0, 1/{NUM_BINS}], (1/{NUM_BINS}, 2/{NUM_BINS}], ..."

_NO_SAMPLE = "no sample with a known value"


class Bin(NamedTuple):
    """One point of the reliability curve; the two means are None in an empty bin."""

    low: float
    high: float
    num_samples: int
    mean_probability: float | None
    observed: float | None


def brier(targets: NDArray[np.int8], probabilities: Array, weights: Array) -> Array:
    """Return the Brier score of one label, [n], for each row of ``weights`` [D, n]: [D]."""
    known = targets != UNKNOWN
    errors = (probabilities[known] - targets[known]) ** 2
    return weighted_ratio(weights[:, known] @ errors, weights[:, known].sum(axis=1))


def expected_calibration_error(
    targets: NDArray[np.int8], probabilities: Array, weights: Array, *, num_bins: int = NUM_BINS
) -> Array:
    """Return the ECE of one label, [n], for each row of ``weights`` [D, n]: [D]."""
    known = targets != UNKNOWN
    # A bin's share x |mean probability - frequency| is |sum of (probability - target)| / all.
    gaps = np.zeros((int(known.sum()), num_bins))
    gaps[np.arange(len(gaps)), bin_of(probabilities[known], num_bins)] = (
        probabilities[known] - targets[known]
    )
    total = np.abs(weights[:, known] @ gaps).sum(axis=1)
    return weighted_ratio(total, weights[:, known].sum(axis=1))


def reliability(
    targets: NDArray[np.int8], probabilities: Array, *, num_bins: int = NUM_BINS
) -> tuple[Bin, ...]:
    """Return the reliability curve of one label, [n]: all bins, empty ones too."""
    _check_probabilities(probabilities)
    known = targets != UNKNOWN
    chosen, hits = probabilities[known], targets[known]
    index = bin_of(chosen, num_bins)
    return tuple(
        Bin(
            low=one / num_bins,
            high=(one + 1) / num_bins,
            num_samples=int((index == one).sum()),
            mean_probability=float(chosen[index == one].mean()) if (index == one).any() else None,
            observed=float(hits[index == one].mean()) if (index == one).any() else None,
        )
        for one in range(num_bins)
    )


def bin_of(probabilities: Array, num_bins: int) -> NDArray[np.intp]:
    """Return the bin, 0 .. num_bins - 1, of each probability."""
    inner = np.arange(1, num_bins) / num_bins
    return np.searchsorted(inner, probabilities, side="left")


def calibration_panel(
    targets: NDArray[np.int8], probabilities: Array, *, labels: Sequence[str]
) -> Panel:
    """Return mean_brier, brier/<label>, mean_ece and ece/<label>; arrays [n, L].

    Raises SchemaError for a probability outside [0, 1].
    """
    _check_probabilities(probabilities)
    columns = list(zip(targets.T, probabilities.T, strict=True))

    def statistic(weights: Array) -> Array:
        squares = [brier(*one, weights) for one in columns]
        gaps = [expected_calibration_error(*one, weights) for one in columns]
        return np.column_stack(
            [with_mean(np.column_stack(squares)), with_mean(np.column_stack(gaps))]
        )

    empty = (targets == UNKNOWN).all(axis=0)
    reasons = {label: _NO_SAMPLE for label, none in zip(labels, empty, strict=True) if none}
    return Panel(
        names=(*class_names("brier", labels), *class_names("ece", labels)),
        statistic=statistic,
        undefined={**class_reasons("brier", reasons), **class_reasons("ece", reasons)},
    )


def _check_probabilities(probabilities: Array) -> None:
    outside = int((~((probabilities >= 0) & (probabilities <= 1))).sum())
    if outside:
        raise SchemaError(
            f"column score: expected probabilities in [0, 1], found {outside} outside",
            hint="calibration needs probabilities; pass logits through the sigmoid first",
        )
