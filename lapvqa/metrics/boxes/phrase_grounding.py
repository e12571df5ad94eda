"""Phrase grounding: one predicted box per phrase against the phrase's true box or boxes.

mIoU: mean over phrases of the IoU; Acc@t: share of phrases with IoU >= t; pointing: share whose
predicted centre lies in a true box, edges included, no tolerance (Zhang et al., ECCV 2016, for
a box head: its centre is the point). A phrase without a predicted box counts as IoU 0 and as a
miss. Of several true boxes the rule is stated: ``union`` compares with the area that they cover
together (the phrase means all of them), ``best`` with the one overlapped most. On phrases with
one box, MS-CXR's usual protocol, both are the same. IoU of similarity maps (BioViL) and IoU summed
over a whole set (CHEX) are other metrics and not comparable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from lapvqa.errors import SchemaError
from lapvqa.metrics.bootstrap import Array
from lapvqa.metrics.boxes.overlap import iou, union_iou
from lapvqa.metrics.panel import Panel, weighted_mean

Several = Literal["union", "best"]

THRESHOLDS = (0.25, 0.5)
NAMES = ("miou", *(f"acc{round(100 * threshold)}" for threshold in THRESHOLDS), "pointing")


def grounding_panel(truth: Sequence[Array], predicted: Array, *, several: Several) -> Panel:
    """Return miou, acc25, acc50 and pointing; weights are of phrases.

    ``truth``: the true boxes of each phrase, [m, 4], m >= 1; ``predicted`` [n, 4], a row of NaN
    where there is none. All xyxy in one unit, cut at the image's edges by the caller.
    Raises SchemaError for a phrase without a true box, a box without area, or a predicted box
    that is partly NaN or infinite.
    """
    _check(truth, predicted)
    overlaps = phrase_ious(truth, predicted, several=several)
    values = np.column_stack(
        [
            overlaps,
            *(overlaps >= threshold for threshold in THRESHOLDS),
            points_inside(truth, predicted),
        ]
    )

    def statistic(weights: Array) -> Array:
        return weighted_mean(values, weights)

    return Panel(names=NAMES, statistic=statistic)


def phrase_ious(truth: Sequence[Array], predicted: Array, *, several: Several) -> Array:
    """Return the IoU of each phrase [n], 0 without a predicted box."""
    values = np.zeros(len(predicted))
    for index, (boxes, box) in enumerate(zip(truth, predicted, strict=True)):
        if np.isfinite(box).all():
            single = several == "best" or len(boxes) == 1
            values[index] = iou(box[None], boxes).max() if single else union_iou(box, boxes)
    return values


def points_inside(truth: Sequence[Array], predicted: Array) -> Array:
    """Return 1 where the centre of the predicted box lies in a true box, else 0: [n]."""
    values = np.zeros(len(predicted))
    for index, (boxes, box) in enumerate(zip(truth, predicted, strict=True)):
        centre = (box[:2] + box[2:]) / 2
        inside = (boxes[:, :2] <= centre).all(axis=1) & (centre <= boxes[:, 2:]).all(axis=1)
        values[index] = inside.any()  # a centre of NaN lies nowhere
    return values


def _check(truth: Sequence[Array], predicted: Array) -> None:
    if len(truth) != len(predicted):
        raise _fault(f"one predicted box per phrase ({len(truth)}), found {len(predicted)}")
    empty = sum(not len(boxes) for boxes in truth)
    if empty:
        raise _fault(f"a true box for every phrase, found {empty} without")
    every = np.vstack([*truth, np.zeros((0, 4))])
    flat = int((~(every[:, 2:] > every[:, :2]).all(axis=1)).sum())
    if flat:
        raise _fault(f"true boxes with x0 < x1 and y0 < y1, found {flat} without area")
    absent = np.isnan(predicted).all(axis=1)
    broken = int((~absent & ~np.isfinite(predicted).all(axis=1)).sum())
    if broken:
        raise _fault(f"predicted boxes of four numbers, or all NaN for none, found {broken} mixed")


def _fault(expected: str) -> SchemaError:
    return SchemaError(
        f"grounding predictions: expected {expected}",
        hint="boxes are x0, y0, x1, y1; see lapvqa.metrics.boxes.phrase_grounding",
    )
