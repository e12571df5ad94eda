"""Overlap of boxes (x0, y0, x1, y1) in continuous coordinates: area = (x1 - x0)(y1 - y0)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:  # readers of boxes need no intervals, and neither does the firewall
    from lapvqa.metrics.bootstrap import Array


def as_boxes(boxes: ArrayLike) -> Array:
    """Return float64 [n, 4], also of an empty list."""
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4)


def areas(boxes: Array) -> Array:
    """Return areas [n]; 0 where a corner is not beyond the other."""
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)
    product: Array = sides[:, 0] * sides[:, 1]
    return product


def iou(first: Array, second: Array) -> Array:
    """Return intersection over union [n, m]; 0 where nothing is covered."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    union = areas(first)[:, None] + areas(second)[None, :] - shared
    ratio: Array = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ratio


def union_iou(box: Array, others: Array) -> float:
    """Return the IoU of one box [4] with the area that ``others`` [m, 4] cover together.

    Exact: the plane is cut at every edge, and each cell lies wholly inside or outside.
    """
    every = np.vstack([box, others])
    xs, ys = np.unique(every[:, [0, 2]]), np.unique(every[:, [1, 3]])
    cells = np.diff(ys)[:, None] * np.diff(xs)[None, :]
    middle_x, middle_y = (xs[:-1] + xs[1:]) / 2, (ys[:-1] + ys[1:]) / 2
    inside = (
        (every[:, 0, None, None] < middle_x)
        & (middle_x < every[:, 2, None, None])
        & (every[:, 1, None, None] < middle_y[:, None])
        & (middle_y[:, None] < every[:, 3, None, None])
    )
    own, theirs = inside[0], inside[1:].any(axis=0)
    union = float(cells[own | theirs].sum())
    return float(cells[own & theirs].sum()) / union if union > 0 else 0.0
