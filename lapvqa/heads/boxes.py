"""Boxes as tensors, last axis 4: (cx, cy, w, h) or xyxy = (x0, y0, x1, y1), continuous coordinates.

All functions broadcast over the other axes: ``giou(a[:, None], b)`` compares each with each.
"""

from __future__ import annotations

import torch
from torch import Tensor

_EPSILON = 1e-9  # an area; below it two empty boxes would divide 0 by 0


def to_xyxy(cxcywh: Tensor) -> Tensor:
    """Map (cx, cy, w, h) to corners."""
    centre, size = cxcywh[..., :2], cxcywh[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def to_cxcywh(xyxy: Tensor) -> Tensor:
    """Map corners to (cx, cy, w, h)."""
    low, high = xyxy[..., :2], xyxy[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def area(xyxy: Tensor) -> Tensor:
    """Return width times height; corners in the wrong order have none."""
    size = (xyxy[..., 2:] - xyxy[..., :2]).clamp(min=0)
    return size[..., 0] * size[..., 1]


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersection over union of xyxy boxes; 0 where both are empty."""
    common, union = _common_and_union(a, b)
    return common / union.clamp(min=_EPSILON)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Return the generalised IoU of xyxy boxes, in [-1, 1] (Rezatofighi et al., CVPR 2019).

    IoU less the share of the smallest enclosing box that neither fills.
    """
    common, union = _common_and_union(a, b)
    low = torch.minimum(a[..., :2], b[..., :2])
    high = torch.maximum(a[..., 2:], b[..., 2:])
    hull = area(torch.cat([low, high], dim=-1)).clamp(min=_EPSILON)
    return common / union.clamp(min=_EPSILON) - (hull - union) / hull


def _common_and_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., 2:], b[..., 2:])
    common = area(torch.cat([low, high], dim=-1))
    return common, area(a) + area(b) - common
