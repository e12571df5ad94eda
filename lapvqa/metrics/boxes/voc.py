"""Average precision of boxes, PASCAL VOC's way, for many weightings of the images at once.

Per class: boxes by descending score; each claims the true box of its image that it overlaps most;
a hit if the overlap suffices and that box is unclaimed, else a false positive (so is a second
box on one finding). AP is the area under the precision envelope at all points (VOC 2010 and
later: Everingham et al., IJCV 88, 2010). Equal scores are one threshold, so the order of the
input does not matter. Images without true boxes count: what is found there is false.

mAP@0.4 is VinDr-CXR's (Kaggle 2021: IoU above 0.4, strictly). mAP@0.5 is VOC's own (at least
0.5). Kaggle scored "No finding" as a fifteenth class with the box 0 0 1 1; give such boxes to
have it so, otherwise 14 classes are scored, as most papers do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lapvqa.errors import SchemaError
from lapvqa.metrics.bootstrap import Array
from lapvqa.metrics.boxes.overlap import iou
from lapvqa.metrics.panel import Panel, class_names, class_reasons, weighted_ratio, with_mean

Index = NDArray[np.int64]

NO_TRUE_BOX = "no image has a true box of it"


@dataclass(frozen=True)
class TrueBoxes:
    """``image`` [m], 0..n-1; ``label`` [m], 0..L-1; ``boxes`` [m, 4] xyxy, any one unit."""

    image: Index
    label: Index
    boxes: Array


@dataclass(frozen=True)
class FoundBoxes:
    """As TrueBoxes, with ``scores`` [m], higher is surer."""

    image: Index
    label: Index
    boxes: Array
    scores: Array


@dataclass(frozen=True, kw_only=True)
class Rule:
    """When an overlap suffices: above ``min_iou`` (strict) or from it on; its metric's name."""

    name: str
    min_iou: float
    strict: bool


VINDR = Rule(name="ap40", min_iou=0.4, strict=True)
VOC = Rule(name="ap50", min_iou=0.5, strict=False)


@dataclass(frozen=True)
class _Ranked:
    """One class: its found boxes by descending score, and its true boxes per image [n].

    ``ends``: last position of each run of equal scores.
    """

    image: Index
    hit: NDArray[np.bool_]
    ends: NDArray[np.intp]
    num_true: Array


def detection_panel(
    truth: TrueBoxes,
    detections: FoundBoxes,
    *,
    num_images: int,
    labels: Sequence[str],
    rules: Sequence[Rule] = (VINDR, VOC),
) -> Panel:
    """Return mean_ap40, ap40/<label>, mean_ap50, ap50/<label>; weights are of images.

    ``num_images`` counts every image looked at, those without any box too. Classes without a
    true box have no AP and are left out of the mean. Raises SchemaError for an image or label
    out of range, a box that is none, or a score that is no number.
    """
    check_boxes(truth, detections, num_images=num_images, num_labels=len(labels))
    by_rule = [
        [_rank(truth, detections, label, num_images, hits) for label in range(len(labels))]
        for hits in (find_hits(truth, detections, rule) for rule in rules)
    ]

    def statistic(weights: Array) -> Array:
        return np.column_stack(
            [
                with_mean(np.column_stack([_average_precision(ranked, weights) for ranked in rule]))
                for rule in by_rule
            ]
        )

    shown = set(truth.label.tolist())
    reasons = {name: NO_TRUE_BOX for label, name in enumerate(labels) if label not in shown}
    undefined: dict[str, str] = {}
    for rule in rules:
        undefined |= class_reasons(rule.name, reasons)
    names = tuple(name for rule in rules for name in class_names(rule.name, labels))
    return Panel(names=names, statistic=statistic, undefined=undefined)


def find_hits(truth: TrueBoxes, detections: FoundBoxes, rule: Rule) -> NDArray[np.bool_]:
    """Return which found boxes are hits, [m].

    Boxes of one image and class with equal scores claim in ascending order of x0, y0, x1, y1; of
    two true boxes overlapped equally the first in that order is claimed.
    """
    order = np.lexsort(truth.boxes.T[::-1])
    true_of: dict[tuple[int, int], list[int]] = {}
    for index in order.tolist():
        true_of.setdefault((int(truth.image[index]), int(truth.label[index])), []).append(index)
    hits = np.zeros(len(detections.scores), dtype=bool)
    claimed: set[int] = set()
    for index in np.lexsort((*detections.boxes.T[::-1], -detections.scores)).tolist():
        candidates = true_of.get((int(detections.image[index]), int(detections.label[index])))
        if not candidates:
            continue
        overlaps = iou(detections.boxes[index : index + 1], truth.boxes[candidates])[0]
        best = int(overlaps.argmax())
        enough = overlaps[best] > rule.min_iou or (
            not rule.strict and overlaps[best] == rule.min_iou
        )
        if enough and candidates[best] not in claimed:
            claimed.add(candidates[best])
            hits[index] = True
    return hits


def check_boxes(
    truth: TrueBoxes, detections: FoundBoxes, *, num_images: int, num_labels: int
) -> None:
    """Raise SchemaError for what cannot be scored, before it becomes a silent number."""
    for name, given in (("true", truth), ("found", detections)):
        if len(given.image) and (given.image.min() < 0 or given.image.max() >= num_images):
            raise _fault(f"{name} boxes: images 0..{num_images - 1}, found one outside")
        if len(given.label) and (given.label.min() < 0 or given.label.max() >= num_labels):
            raise _fault(f"{name} boxes: labels 0..{num_labels - 1}, found one outside")
        low, high = given.boxes[:, :2], given.boxes[:, 2:]
        # A head may shrink a box to nothing, which overlaps nothing; a true box has an area.
        fit = (high > low) if given is truth else (high >= low)
        turned = int((~fit.all(axis=1)).sum())
        if turned or not np.isfinite(given.boxes).all():
            raise _fault(f"{name} boxes: finite, x0 < x1 and y0 < y1, found {turned} otherwise")
    if not np.isfinite(detections.scores).all():
        raise _fault("a finite score for every found box, found NaN or infinity")


def _rank(
    truth: TrueBoxes, detections: FoundBoxes, label: int, num_images: int, hits: NDArray[np.bool_]
) -> _Ranked:
    of_class = np.flatnonzero(detections.label == label)
    order = of_class[np.argsort(-detections.scores[of_class], kind="stable")]
    steps = np.flatnonzero(np.diff(detections.scores[order]))
    return _Ranked(
        image=detections.image[order],
        hit=hits[order],
        ends=np.append(steps, len(order) - 1) if len(order) else steps,
        num_true=np.bincount(truth.image[truth.label == label], minlength=num_images).astype(
            np.float64
        ),
    )


def _average_precision(ranked: _Ranked, weights: Array) -> Array:
    """Return AP for each row of ``weights`` [D, images]: [D]; NaN without true boxes."""
    drawn = weights[:, ranked.image]
    hits = np.cumsum(drawn * ranked.hit, axis=1)[:, ranked.ends]
    all_found = np.cumsum(drawn, axis=1)[:, ranked.ends]
    precision = np.divide(hits, all_found, out=np.zeros_like(hits), where=all_found > 0)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    gained = np.diff(hits, axis=1, prepend=0)
    return weighted_ratio((gained * envelope).sum(axis=1), weights @ ranked.num_true)


def _fault(expected: str) -> SchemaError:
    return SchemaError(
        f"detections: expected {expected}",
        hint="boxes are x0, y0, x1, y1, y downwards; see lapvqa.metrics.boxes.voc",
    )
