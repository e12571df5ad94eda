"""Scores of classes against binary targets: ranking (AUROC, average precision) and calibration.

Every function takes many weightings of the samples at once, which makes a bootstrap cheap.

AUROC = P(score of a positive > score of a negative) + P(equal) / 2 (Hanley & McNeil, Radiology
143, 1982). Equal to ``sklearn.metrics.roc_auc_score(target, score, sample_weight=w)``, which sorts
once per call; here one sort serves all weightings.

AP, the area under the precision-recall curve, = sum over thresholds of (recall gained) x
(precision there), equal scores being one threshold: ``sklearn.metrics.average_precision_score``.
No interpolation between thresholds, which would flatter (Davis & Goadrich, ICML 2006).
Detection's interpolated AP is in ``boxes.voc``.

Brier score: mean (probability - target)^2 (Brier 1950). Expected calibration error: bins of equal
width over [0, 1], closed on the right (the first also on the left); the mean over samples of
|mean probability - observed frequency| of their bin (Naeini et al., AAAI 2015; Guo et al.,
ICML 2017). The ECE of a finite sample is above 0 even for a calibrated model, and a bootstrap draw
lies a little above the sample it was drawn from, and so does its interval (docs/metrics.md):
compare systems, do not read it as an absolute.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lapvqa.errors import SchemaError
from lapvqa.metrics.bootstrap import Array, Statistic
from lapvqa.metrics.panel import Panel, class_names, class_reasons, weighted_ratio, with_mean

UNKNOWN = -1
"""Target of a sample that has no value for a label; it is left out for that label."""

NUM_BINS = 15
"""Bins of the calibration error, as Guo et al."""

_NO_KNOWN_VALUE = "no sample with a known value"


class Bin(NamedTuple):
    """One point of the reliability curve; the two means are None in an empty bin."""

    low: float
    high: float
    num_samples: int
    mean_probability: float | None
    observed: float | None


def auroc(targets: NDArray[np.int8], scores: Array, weights: Array) -> Array:
    """Return the weighted AUROC for each row of ``weights``.

    ``targets`` [n]: 1, 0 or UNKNOWN; ``scores`` [n]; ``weights`` [D, n] -> [D].
    NaN where positives or negatives are absent or weigh nothing.
    """
    positive, negative = np.flatnonzero(targets == 1), np.flatnonzero(targets == 0)
    negative = negative[np.argsort(scores[negative], kind="stable")]
    ordered, wanted = scores[negative], scores[positive]
    # below[:, k] is the weight of the k lowest negatives; a positive beats those strictly below it
    # and half of those that tie with it: the mean of the two searchsorted sides.
    below = np.zeros((len(weights), len(negative) + 1))
    np.cumsum(weights[:, negative], axis=1, out=below[:, 1:])
    left, right = (np.searchsorted(ordered, wanted, side=side) for side in ("left", "right"))
    positive_weights = weights[:, positive]
    won = ((below[:, left] + below[:, right]) * positive_weights).sum(axis=1) / 2
    pairs = positive_weights.sum(axis=1) * below[:, -1]
    area: Array = np.full(len(weights), np.nan)
    np.divide(won, pairs, out=area, where=pairs > 0)
    return area


def mean_and_class_aurocs(targets: NDArray[np.int8], scores: Array) -> Statistic:
    """Return the statistic weights [D, n] -> [D, 1 + L]: mean over classes, then each class.

    ``targets``, ``scores`` [n, L]. The mean is over the classes that are defined in a draw; NaN
    where none is.
    """

    def statistic(weights: Array) -> Array:
        classes = np.stack(
            [
                auroc(targets[:, label], scores[:, label], weights)
                for label in range(targets.shape[1])
            ],
            axis=1,
        )
        return with_mean(classes)

    return statistic


def auroc_panel(targets: NDArray[np.int8], scores: Array, *, labels: Sequence[str]) -> Panel:
    """Return mean_auc and auc/<label>; ``targets``, ``scores`` [n, L]."""
    return Panel(
        names=class_names("auc", labels),
        statistic=mean_and_class_aurocs(targets, scores),
        undefined=class_reasons("auc", undefined_classes(targets, labels)),
    )


def undefined_classes(targets: NDArray[np.int8], labels: Sequence[str]) -> dict[str, str]:
    """Return label -> why its AUROC (and AUPRC) has no value; ``targets`` [n, L]."""
    columns = zip(labels, targets.T, strict=True)
    reasons = {label: why_undefined(column) for label, column in columns}
    return {label: reason for label, reason in reasons.items() if reason}


def why_undefined(targets: NDArray[np.int8]) -> str | None:
    """Return why the AUROC of one label [n] has no value; None if it has one."""
    if not (targets != UNKNOWN).any():
        return _NO_KNOWN_VALUE
    if not (targets == 1).any():
        return "no positives"
    if not (targets == 0).any():
        return "no negatives"
    return None


def roc_curve(targets: NDArray[np.int8], scores: Array, grid: Array) -> Array | None:
    """Return the true positive rate at the false positive rates ``grid`` (ascending, 0..1).

    Straight lines join the thresholds, so the area under an infinitely fine grid is the AUROC;
    at a jump the upper end is taken. None if the curve is undefined.
    """
    if why_undefined(targets):
        return None
    known = targets != UNKNOWN
    order = np.argsort(-scores[known], kind="stable")
    hits, ranked = targets[known][order] == 1, scores[known][order]
    last_of_tie = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    tpr = np.append(0, np.cumsum(hits)[last_of_tie]) / hits.sum()
    fpr = np.append(0, np.cumsum(~hits)[last_of_tie]) / (~hits).sum()
    upper = np.searchsorted(fpr, grid, side="right") - 1
    following = np.minimum(upper + 1, len(fpr) - 1)
    step = fpr[following] - fpr[upper]
    share = np.divide(grid - fpr[upper], step, out=np.zeros(len(grid)), where=step > 0)
    result: Array = tpr[upper] + share * (tpr[following] - tpr[upper])
    return result


def mean_roc_curve(targets: NDArray[np.int8], scores: Array, grid: Array) -> Array | None:
    """Return the mean of the classes' curves at each point of ``grid`` (vertical averaging).

    Fawcett, "An introduction to ROC analysis" (2006), section 8. The area under it is the mean
    AUROC. None if no class is defined.
    """
    pairs = zip(targets.T, scores.T, strict=True)
    curves = [roc_curve(*pair, grid) for pair in pairs]
    defined = [curve for curve in curves if curve is not None]
    return np.mean(defined, axis=0) if defined else None


def average_precision(targets: NDArray[np.int8], scores: Array, weights: Array) -> Array:
    """Return the weighted average precision for each row of ``weights``.

    ``targets`` [n]: 1, 0 or UNKNOWN; ``scores`` [n]; ``weights`` [D, n] -> [D].
    NaN where positives or negatives are absent or weigh nothing, as for the AUROC, so that both
    means are over the same classes (without negatives the area would be 1 for any score).
    """
    known = np.flatnonzero(targets != UNKNOWN)
    order = known[np.argsort(-scores[known], kind="stable")]
    if not len(order):
        return np.full(len(weights), np.nan)
    positive = targets[order] == 1
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    ranked = weights[:, order]
    above = np.cumsum(ranked, axis=1)[:, ends]
    hits = np.cumsum(ranked * positive, axis=1)[:, ends]
    gained = np.diff(hits, axis=1, prepend=0)
    precision = np.divide(hits, above, out=np.zeros_like(hits), where=above > 0)
    area = weighted_ratio((gained * precision).sum(axis=1), hits[:, -1])
    area[above[:, -1] <= hits[:, -1]] = np.nan
    return area


def auprc_panel(targets: NDArray[np.int8], scores: Array, *, labels: Sequence[str]) -> Panel:
    """Return mean_auprc and auprc/<label>; ``targets``, ``scores`` [n, L]."""

    def statistic(weights: Array) -> Array:
        pairs = zip(targets.T, scores.T, strict=True)
        return with_mean(np.column_stack([average_precision(*pair, weights) for pair in pairs]))

    return Panel(
        names=class_names("auprc", labels),
        statistic=statistic,
        undefined=class_reasons("auprc", undefined_classes(targets, labels)),
    )


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
            low=number / num_bins,
            high=(number + 1) / num_bins,
            num_samples=int(inside.sum()),
            mean_probability=float(chosen[inside].mean()) if inside.any() else None,
            observed=float(hits[inside].mean()) if inside.any() else None,
        )
        for number, inside in ((number, index == number) for number in range(num_bins))
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
    pairs = list(zip(targets.T, probabilities.T, strict=True))

    def statistic(weights: Array) -> Array:
        squares = [brier(*pair, weights) for pair in pairs]
        gaps = [expected_calibration_error(*pair, weights) for pair in pairs]
        return np.column_stack(
            [with_mean(np.column_stack(squares)), with_mean(np.column_stack(gaps))]
        )

    empty = (targets == UNKNOWN).all(axis=0)
    reasons = {label: _NO_KNOWN_VALUE for label, none in zip(labels, empty, strict=True) if none}
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
