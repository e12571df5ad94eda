"""Boxes: fusion against ensemble-boxes and by properties, places in the stored square."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lapvqa.datasets.boxes import fuse, same_shape, to_centred, to_stored_square
from lapvqa.images.geometry import fit_of
from lapvqa.metrics.boxes.overlap import as_boxes, iou
from lapvqa.schemas import STORED_SIZE

GOLDEN = json.loads((Path(__file__).parent / "golden_fusion.json").read_text())

corner = st.floats(0, 90)
side = st.floats(1, 60)
drawn = st.lists(
    st.tuples(corner, corner, side, side, st.sampled_from(["R1", "R2", "R3"])), max_size=12
)


def split(found: list[tuple[float, float, float, float, str]]):
    return [(x, y, x + w, y + h) for x, y, w, h, _ in found], [reader for *_, reader in found]


def test_fusion_equals_ensemble_boxes():
    """The file holds what weighted_boxes_fusion of ensemble-boxes 1.0.9 made of these boxes.

    Given as one list with equal scores, which it takes in reverse; it computes in float32.
    """
    assert len(GOLDEN) > 30
    for case in GOLDEN:
        fused = fuse(case["boxes"], case["readers"], min_iou=case["min_iou"])
        found = np.array(sorted(fused.boxes.tolist()))
        np.testing.assert_allclose(found, np.array(case["fused"]), atol=1e-6)


def test_three_readers_who_agree_give_their_mean_and_three_votes():
    boxes = [(10, 10, 50, 50), (12, 10, 52, 50), (14, 10, 54, 50), (80, 80, 90, 90)]
    fused = fuse(boxes, ["R1", "R2", "R3", "R3"], min_iou=0.4)
    assert fused.boxes.tolist() == [[12, 10, 52, 50], [80, 80, 90, 90]]
    assert fused.votes.tolist() == [3, 1]


def test_two_boxes_of_one_reader_count_him_once():
    assert fuse([(0, 0, 10, 10), (1, 0, 10, 10)], ["R8", "R8"], min_iou=0.4).votes.tolist() == [1]


def test_overlap_must_exceed_the_threshold():
    boxes = [(0, 0, 10, 10), (0, 0, 10, 5)]  # IoU exactly 0.5
    assert len(fuse(boxes, ["R1", "R2"], min_iou=0.5).boxes) == 2
    assert len(fuse(boxes, ["R1", "R2"], min_iou=0.49).boxes) == 1


def test_no_boxes():
    fused = fuse([], [], min_iou=0.4)
    assert fused.boxes.shape == (0, 4)
    assert fused.votes.shape == (0,)


@given(drawn, st.randoms())
@settings(max_examples=100)
def test_the_order_of_rows_does_not_matter(found, random):
    first = fuse(*split(found), min_iou=0.4)
    shuffled = list(found)
    random.shuffle(shuffled)
    again = fuse(*split(shuffled), min_iou=0.4)
    # Equal boxes of two readers may change places: their group has the same readers anyway.
    np.testing.assert_allclose(first.boxes, again.boxes, atol=1e-9)
    assert first.votes.tolist() == again.votes.tolist()


@given(drawn)
@settings(max_examples=100)
def test_every_reader_is_represented_and_nothing_grows(found):
    boxes, readers = split(found)
    fused = fuse(boxes, readers, min_iou=0.4)
    assert len(fused.boxes) <= len(boxes)
    assert len(readers) == 0 or 1 <= fused.votes.min() <= fused.votes.max() <= len(set(readers))
    if boxes:
        assert fused.boxes.min() >= np.min(boxes) - 1e-9
        assert fused.boxes.max() <= np.max(boxes) + 1e-9


def test_iou_by_hand():
    others = [(0, 0, 10, 10), (5, 0, 15, 10), (20, 20, 30, 30), (3, 3, 3, 9)]
    found = iou(as_boxes((0, 0, 10, 10)), as_boxes(others))
    np.testing.assert_allclose(found, [[1, 50 / 150, 0, 0]])


def test_boxes_follow_the_image_into_the_stored_square():
    fit = fit_of(2000, 1000)  # scale 0.189, 189 columns from 94.5 floored to 94
    placed = to_stored_square([(0, 0, 1000, 2000), (100, 200, 300, 400)], fit)
    np.testing.assert_allclose(placed[0], [fit.offset_x, fit.offset_y, fit.offset_x + 189, 378])
    np.testing.assert_allclose(
        placed[1], np.array([18.9, 37.8, 56.7, 75.6]) + [fit.offset_x, 0] * 2
    )


def test_boxes_on_a_resized_copy_land_where_the_original_has_them():
    original, copy = fit_of(2000, 1000), fit_of(500, 250)
    boxes = [(100, 200, 300, 400), (-5, 1500, 1200, 2300)]
    np.testing.assert_allclose(
        to_stored_square(boxes, copy, size=(2000, 1000)), to_stored_square(boxes, original)
    )
    assert same_shape((2000, 1000), copy)
    assert same_shape((2011, 1000), copy)
    assert not same_shape((2000, 1000), fit_of(512, 512))


@given(st.tuples(corner, corner, side, side))
def test_centred_form_and_back(found):
    x, y, w, h = found
    box = [(x, y, x + w, y + h)]
    centred = to_centred(box)
    np.testing.assert_allclose(centred[0, 2:] * 384, [w, h])
    low, high = centred[:, :2] - centred[:, 2:] / 2, centred[:, :2] + centred[:, 2:] / 2
    np.testing.assert_allclose(np.hstack([low, high]) * STORED_SIZE, box, atol=1e-9)


def test_a_whole_stored_square_is_the_whole():
    assert to_centred([(0, 0, 384, 384)]).tolist() == [[0.5, 0.5, 1, 1]]


def test_a_chain_is_cut_where_the_mean_box_no_longer_overlaps():
    chain = [(10 * i, 0, 10 * i + 40, 40) for i in range(6)]
    assert 1 < len(fuse(chain, ["R1"] * 6, min_iou=0.4).boxes) < 6
