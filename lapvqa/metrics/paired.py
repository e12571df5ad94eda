"""Two systems on the same samples: how far apart they are, and how surprising that is.

Bootstrap: each draw weighs the same patients for both systems, so what makes a sample hard for
both cancels. The two-sided p is the share of draws on the other side of 0, twice (Efron &
Tibshirani 1993, ch. 16; one is added to both counts, so p is never 0). Nor is it less than an exact
sign test's of n patients who all agree, 2 ** (1 - n): where they do, every draw does, and p would
tell the number of draws.

DeLong's test, for AUROCs: DeLong, DeLong & Clarke-Pearson, Biometrics 44 (1988): the AUROC is the
mean of the positives' placements among the negatives; its variance follows from how far the
placements scatter. Obuchowski, Biometrics 53 (1997), sums placements over the samples of one
patient first; with one sample per patient the two are the same number. Placements by ranks as in
Sun & Xu, IEEE SPL 21 (2014). The test is asymptotic: beside the bootstrap interval, not instead of
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from lapvqa.metrics.bootstrap import MIN_PATIENTS, Array, interval


@dataclass(frozen=True)
class Difference:
    """First system minus second; None where undefined."""

    value: float | None
    low: float | None
    high: float | None
    p_value: float | None


def from_draws(
    names: tuple[str, ...], first: Array, second: Array, *, patients: int, confidence: float
) -> dict[str, Difference]:
    """Return metric -> Difference of two results of ``draw_values`` on the same draws.

    ``patients``: how many were drawn from.
    """
    columns = (first - second).reshape(len(first), -1).T
    return {
        name: _difference(column, patients=patients, confidence=confidence)
        for name, column in zip(names, columns, strict=True)
    }


def _difference(column: Array, *, patients: int, confidence: float) -> Difference:
    estimate = interval(column, confidence=confidence)
    if estimate.low is None:
        return Difference(*estimate, None)
    drawn = column[1:][np.isfinite(column[1:])]
    smaller = min((drawn <= 0).sum(), (drawn >= 0).sum())
    p_value = max(2 * float(smaller + 1) / (len(drawn) + 1), 0.5 ** (patients - 1))
    return Difference(*estimate, min(1.0, p_value))


@dataclass(frozen=True)
class AucCovariance:
    """``aucs`` [k] of k systems and the covariance of these estimates, [k, k]."""

    aucs: Array
    covariance: Array


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Difference of two AUROCs, first - second, with its normal interval and two-sided p.

    ``z`` and ``p_value`` are None if the difference does not vary (two systems of one ranking).
    """

    difference: float
    standard_error: float
    low: float
    high: float
    z: float | None
    p_value: float | None


def auc_covariance(
    targets: NDArray[np.int8], scores: Array, clusters: Sequence[str]
) -> AucCovariance | None:
    """Return AUROCs and their covariance.

    None with fewer than two patients of either kind, or than MIN_PATIENTS of both.

    ``targets`` [n]: 1, 0, others are left out; ``scores`` [n, k], a column per system;
    ``clusters``: the patient of each sample.
    """
    names, cluster = np.unique(np.asarray(clusters), return_inverse=True)
    positive, negative = np.flatnonzero(targets == 1), np.flatnonzero(targets == 0)
    ill, well = np.unique(cluster[positive]), np.unique(cluster[negative])
    if min(len(ill), len(well)) < 2 or len(np.union1d(ill, well)) < MIN_PATIENTS:
        return None
    above = _placements(scores[positive], scores[negative])
    below = 1 - _placements(scores[negative], scores[positive])
    aucs: Array = above.mean(axis=0)
    sums_ill = _sums(above - aucs, cluster[positive], len(names))
    sums_well = _sums(below - aucs, cluster[negative], len(names))
    m, n = len(positive), len(negative)
    both = sums_ill.T @ sums_well * len(names) / (len(names) - 1) / (m * n)
    covariance = (
        sums_ill.T @ sums_ill * len(ill) / (len(ill) - 1) / m**2
        + sums_well.T @ sums_well * len(well) / (len(well) - 1) / n**2
        + both
        + both.T
    )
    return AucCovariance(aucs, covariance)


def delong_test(
    targets: NDArray[np.int8],
    first: Array,
    second: Array,
    clusters: Sequence[str],
    *,
    confidence: float,
) -> PairedTest | None:
    """Compare the AUROCs of two systems' scores [n] on the same samples; None if undefined."""
    estimate = auc_covariance(targets, np.column_stack([first, second]), clusters)
    if estimate is None:
        return None
    contrast = np.array([1.0, -1.0])
    difference = float(contrast @ estimate.aucs)
    error = float(np.sqrt(max(0.0, contrast @ estimate.covariance @ contrast)))
    normal = NormalDist()
    reach = normal.inv_cdf((1 + confidence) / 2) * error
    z = difference / error if error > 0 else None
    return PairedTest(
        difference=difference,
        standard_error=error,
        low=difference - reach,
        high=difference + reach,
        z=z,
        p_value=None if z is None else 2 * normal.cdf(-abs(z)),
    )


def _placements(of: Array, among: Array) -> Array:
    """Return the share of ``among`` [n, k] below each of ``of`` [m, k], ties counting half."""
    columns = []
    for scores, others in zip(of.T, among.T, strict=True):
        ordered = np.sort(others)
        sides = [np.searchsorted(ordered, scores, side=side) for side in ("left", "right")]
        columns.append((sides[0] + sides[1]) / (2 * len(ordered)))
    return np.column_stack(columns)


def _sums(rows: Array, cluster: NDArray[np.intp], num_clusters: int) -> Array:
    total = np.zeros((num_clusters, rows.shape[1]))
    np.add.at(total, cluster, rows)
    return total
