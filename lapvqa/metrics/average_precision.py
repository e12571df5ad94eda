"""Area under the precision-recall curve as average precision, for many weightings at once.

AP = sum over thresholds of (recall gained) x (precision there), equal scores being one threshold:
``sklearn.metrics.average_precision_score``. No interpolation between thresholds, which would
flatter (Davis & Goadrich, ICML 2006). Detection's interpolated AP is in ``detection``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lapvqa.metrics.auc import UNKNOWN, undefined_classes
from lapvqa.metrics.bootstrap import Array
from lapvqa.metrics.panel import Panel, class_names, class_reasons, weighted_ratio, with_mean


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
