"""COCO's average precision, matched by pycocotools.

AP is the mean over IoU 0.50, 0.55, .. 0.95 of the precision envelope at 101 recalls, at most 100
boxes per image and class, all sizes (COCO detection evaluation). pycocotools decides which boxes
match; the sums over images are taken here with weights, so that intervals are the same draws of
patients as everywhere. With all weights 1 the result is pycocotools' own.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lapvqa.metrics.bootstrap import Array
from lapvqa.metrics.boxes.voc import NO_TRUE_BOX, FoundBoxes, Index, TrueBoxes, check_boxes
from lapvqa.metrics.panel import Panel, class_names, class_reasons, with_mean

MAX_BOXES = 100

_ALL_AREAS = [0, 1e10]


@dataclass(frozen=True)
class _Ranked:
    """One class: boxes by descending score; ``hits`` [T, m] for T overlaps; true boxes [n]."""

    image: Index
    hits: NDArray[np.bool_]
    num_true: Array


def coco_panel(
    truth: TrueBoxes, detections: FoundBoxes, *, num_images: int, labels: Sequence[str]
) -> Panel:
    """Return mean_coco_ap, coco_ap/<label>, then the same of coco_ap50; weights are of images.

    Raises SchemaError as ``voc.check_boxes`` does.
    """
    check_boxes(truth, detections, num_images=num_images, num_labels=len(labels))
    evaluated = evaluate(truth, detections, num_images=num_images, num_labels=len(labels))
    recalls = np.asarray(evaluated.params.recThrs)
    classes = [_rank(evaluated, label, num_images) for label in range(len(labels))]

    def statistic(weights: Array) -> Array:
        by_overlap = np.stack(
            [_average_precisions(ranked, weights, recalls) for ranked in classes], axis=-1
        )
        return np.column_stack([with_mean(by_overlap.mean(axis=1)), with_mean(by_overlap[:, 0])])

    shown = set(truth.label.tolist())
    reasons = {name: NO_TRUE_BOX for label, name in enumerate(labels) if label not in shown}
    return Panel(
        names=(*class_names("coco_ap", labels), *class_names("coco_ap50", labels)),
        statistic=statistic,
        undefined={**class_reasons("coco_ap", reasons), **class_reasons("coco_ap50", reasons)},
    )


def evaluate(truth: TrueBoxes, detections: FoundBoxes, *, num_images: int, num_labels: int) -> Any:
    """Return pycocotools' COCOeval after evaluate(): image and category ids are the indices."""
    tables = []
    with contextlib.redirect_stdout(io.StringIO()):
        for boxes in (truth, detections):
            table = COCO()
            table.dataset = {
                "images": [{"id": index} for index in range(num_images)],
                "categories": [{"id": index} for index in range(num_labels)],
                "annotations": _annotations(boxes),
            }
            table.createIndex()
            tables.append(table)
        evaluated = COCOeval(*tables, iouType="bbox")
        evaluated.params.areaRng, evaluated.params.areaRngLbl = [_ALL_AREAS], ["all"]
        evaluated.params.maxDets = [MAX_BOXES]
        evaluated.evaluate()
    return evaluated


def _annotations(boxes: TrueBoxes | FoundBoxes) -> list[dict[str, Any]]:
    """Return COCO annotations, xywh; ids begin at 1, because pycocotools reads 0 as no match."""
    low, size = boxes.boxes[:, :2], boxes.boxes[:, 2:] - boxes.boxes[:, :2]
    rows = [
        {
            "id": index + 1,
            "image_id": int(boxes.image[index]),
            "category_id": int(boxes.label[index]),
            "bbox": [*low[index].tolist(), *size[index].tolist()],
            "area": float(size[index].prod()),
            "iscrowd": 0,
        }
        for index in range(len(boxes.image))
    ]
    if isinstance(boxes, FoundBoxes):
        for row, score in zip(rows, boxes.scores.tolist(), strict=True):
            row["score"] = score
    return rows


def _rank(evaluated: Any, label: int, num_images: int) -> _Ranked:
    """Collect what evaluate() matched for one class; its list is [class, image] with one area."""
    rows = evaluated.evalImgs[label * num_images : (label + 1) * num_images]
    num_true, images, scores = np.zeros(num_images), [], []
    hits = [np.zeros((len(evaluated.params.iouThrs), 0), dtype=bool)]
    for index, row in enumerate(rows):
        if row is None:  # neither true nor found boxes
            continue
        num_true[index] = len(row["gtIds"])
        images += [index] * len(row["dtScores"])
        scores += row["dtScores"]
        hits.append(np.asarray(row["dtMatches"]) > 0)
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="mergesort")
    return _Ranked(
        image=np.asarray(images, dtype=np.int64)[order],
        hits=np.concatenate(hits, axis=1)[:, order],
        num_true=num_true,
    )


def _average_precisions(ranked: _Ranked, weights: Array, recalls: Array) -> Array:
    """Return the AP at each overlap for each row of ``weights``: [D, T]; NaN without truth."""
    drawn = weights[:, ranked.image]
    all_found = np.cumsum(drawn, axis=1)
    num_true = weights @ ranked.num_true
    values = np.full((len(weights), len(ranked.hits)), np.nan)
    for overlap, hit in enumerate(ranked.hits):
        hits = np.cumsum(drawn * hit, axis=1)
        precision = np.divide(hits, all_found, out=np.zeros_like(hits), where=all_found > 0)
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        for draw in np.flatnonzero(num_true > 0):
            first = np.searchsorted(hits[draw] / num_true[draw], recalls, side="left")
            reached = first < hits.shape[1]
            values[draw, overlap] = envelope[draw, first[reached]].sum() / len(recalls)
    return values
