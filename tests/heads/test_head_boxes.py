"""Boxes against areas counted cell by cell, and against transformers' formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.loss.loss_for_object_detection import generalized_box_iou

from lapvqa.heads.boxes import area, giou, iou, to_cxcywh, to_xyxy

GRID = 12
Corners = tuple[int, int, int, int]


@st.composite
def corners(draw: st.DrawFn) -> Corners:
    x0, x1 = sorted(draw(st.lists(st.integers(0, GRID), min_size=2, max_size=2, unique=True)))
    y0, y1 = sorted(draw(st.lists(st.integers(0, GRID), min_size=2, max_size=2, unique=True)))
    return x0, y0, x1, y1


def cells(box: Corners) -> np.ndarray:
    filled = np.zeros((GRID, GRID), dtype=bool)
    filled[box[1] : box[3], box[0] : box[2]] = True
    return filled


def hull(a: Corners, b: Corners) -> np.ndarray:
    rows, cols = np.nonzero(cells(a) | cells(b))
    return cells((cols.min(), rows.min(), cols.max() + 1, rows.max() + 1))


@given(corners(), corners())
def test_overlaps_are_those_of_counted_cells(a: Corners, b: Corners) -> None:
    common, union = (cells(a) & cells(b)).sum(), (cells(a) | cells(b)).sum()
    enclosing = hull(a, b).sum()
    ours_a, ours_b = (torch.tensor(box, dtype=torch.float64) / GRID for box in (a, b))
    assert area(ours_a).item() * GRID**2 == pytest.approx(cells(a).sum())
    assert iou(ours_a, ours_b).item() == pytest.approx(common / union)
    expected = common / union - (enclosing - union) / enclosing
    assert giou(ours_a, ours_b).item() == pytest.approx(expected)


def random_boxes(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator, dtype=torch.float64)
    return torch.cat([low, low + torch.rand(count, 2, generator=generator).double()], dim=1)


def test_each_with_each_is_transformers() -> None:
    a, b = random_boxes(30, 0), random_boxes(20, 1)
    torch.testing.assert_close(giou(a[:, None], b), generalized_box_iou(a, b), rtol=0, atol=1e-9)


def test_forms_turn_into_each_other() -> None:
    xyxy = random_boxes(50, 2)
    torch.testing.assert_close(to_xyxy(to_cxcywh(xyxy)), xyxy)
    assert to_cxcywh(torch.tensor([0.2, 0.1, 0.6, 0.9])).tolist() == pytest.approx(
        [0.4, 0.5, 0.4, 0.8]
    )


def test_boxes_without_an_area_have_no_nan() -> None:
    point, box = torch.tensor([0.5, 0.5, 0.5, 0.5]), torch.tensor([0.25, 0.25, 0.75, 0.75])
    assert iou(point, point).item() == 0
    assert giou(point, point).isfinite()
    assert giou(point, box).item() == pytest.approx(0)  # the hull is the box, the union too
    point.requires_grad_()
    giou(point, box).backward()
    assert point.grad is not None
    assert point.grad.isfinite().all()


def test_far_boxes_are_told_apart_by_giou_alone() -> None:
    left = torch.tensor([0.0, 0.0, 0.1, 0.1])
    near, far = torch.tensor([0.2, 0.0, 0.3, 0.1]), torch.tensor([0.8, 0.8, 0.9, 0.9])
    assert iou(left, near).item() == iou(left, far).item() == 0
    assert 0 > giou(left, near).item() > giou(left, far).item() > -1
