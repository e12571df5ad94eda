"""Area under the ROC curve with sample weights, for many weightings at once.

AUROC = P(score of a positive > score of a negative) + P(equal) / 2 (Hanley & McNeil, Radiology
143, 1982). Equal to ``sklearn.metrics.roc_auc_score(target, score, sample_weight=w)``, which sorts
once per call; here one sort serves all weightings, which makes a bootstrap cheap.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lapvqa.metrics.bootstrap import Array, Statistic
from lapvqa.metrics.panel import Panel, class_names, class_reasons, with_mean

UNKNOWN = -1
"""Target of a sample that has no value for a label; it is left out for that label."""


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
    found = {label: why_undefined(one) for label, one in zip(labels, targets.T, strict=True)}
    return {label: reason for label, reason in found.items() if reason}


def why_undefined(targets: NDArray[np.int8]) -> str | None:
    """Return why the AUROC of one label [n] has no value; None if it has one."""
    if not (targets != UNKNOWN).any():
        return "no sample with a known value"
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
    curves = [roc_curve(targets[:, one], scores[:, one], grid) for one in range(targets.shape[1])]
    defined = [curve for curve in curves if curve is not None]
    return np.mean(defined, axis=0) if defined else None
