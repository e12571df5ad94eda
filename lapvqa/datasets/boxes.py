"""Boxes: several readers' boxes fused to one, and the way into the stored square.

A box is (x0, y0, x1, y1); coordinates are continuous as in ``lapvqa.images.geometry``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lapvqa.images.geometry import Fit
from lapvqa.metrics.boxes.overlap import as_boxes, iou
from lapvqa.schemas import STORED_SIZE

Boxes = NDArray[np.float64]

SHAPE_TOLERANCE = 0.02
"""How far the aspect ratios of an original and its resized copy may differ: rounding does it."""


@dataclass(frozen=True)
class Fused:
    """``boxes`` [m, 4] and by how many different readers each was drawn, ``votes`` [m]."""

    boxes: Boxes
    votes: NDArray[np.int64]


def fuse(boxes_xyxy: ArrayLike, readers: Sequence[str], *, min_iou: float) -> Fused:
    """Fuse one class's boxes of all readers of an image (Solovyev et al. 2021, uniform weights).

    Boxes are taken in ascending order of (x0, y0, x1, y1). Each joins the group whose mean box it
    overlaps most, if by more than ``min_iou``, else begins a group; a group's box is the mean of
    its boxes. Two boxes of one reader may join one group, which then counts that reader once.
    The result does not depend on the order of the input; it is ordered by votes, then coordinates.
    """
    boxes = as_boxes(boxes_xyxy)
    order = np.lexsort(boxes.T[::-1])
    groups: list[list[int]] = []
    means = np.zeros((0, 4))
    for index in order:
        overlaps = iou(boxes[index][None], means)[0]
        best = int(overlaps.argmax()) if len(overlaps) else -1
        if best < 0 or overlaps[best] <= min_iou:
            groups.append([int(index)])
            means = np.vstack([means, boxes[index]])
        else:
            groups[best].append(int(index))
            means[best] = boxes[groups[best]].mean(axis=0)
    votes = np.array([len({readers[i] for i in group}) for group in groups], dtype=np.int64)
    ranked = np.lexsort((*means.T[::-1], -votes))
    return Fused(means[ranked], votes[ranked])


def clip(boxes_xyxy: ArrayLike, *, rows: int, cols: int) -> Boxes:
    """Return the boxes cut at the edges of an image."""
    return np.clip(as_boxes(boxes_xyxy), 0, [cols, rows, cols, rows])


def same_shape(size: tuple[int, int], fit: Fit) -> bool:
    """Return whether an image of ``size`` (rows, cols) can be the original of what was stored."""
    original, stored = size[1] / size[0], fit.native_cols / fit.native_rows
    return abs(original / stored - 1) <= SHAPE_TOLERANCE


def to_stored_square(
    boxes_xyxy: ArrayLike, fit: Fit, *, size: tuple[int, int] | None = None
) -> Boxes:
    """Map boxes into the stored square, in stored pixels.

    ``size`` (rows, cols) of the image that the boxes were drawn on, if the stored one was made of
    a resized copy: each axis is scaled first. Cut at the image's edges.
    """
    rows, cols = size or (fit.native_rows, fit.native_cols)
    ratio = np.array([fit.native_cols / cols, fit.native_rows / rows] * 2)
    native = as_boxes(boxes_xyxy) * ratio
    return fit.to_stored(clip(native, rows=fit.native_rows, cols=fit.native_cols))


def to_centred(boxes_stored: ArrayLike) -> Boxes:
    """Map stored pixels xyxy to (cx, cy, w, h) in shares of the stored square, as heads have it."""
    boxes = as_boxes(boxes_stored) / STORED_SIZE
    return np.hstack([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]])
