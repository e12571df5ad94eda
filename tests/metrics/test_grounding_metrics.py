"""Grounding: overlaps against painted masks, thresholds, pointing, several boxes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapvqa.errors import SchemaError
from lapvqa.metrics.boxes.overlap import areas, as_boxes, iou, union_iou
from lapvqa.metrics.boxes.phrase_grounding import NAMES, grounding_panel, phrase_ious

SPANS = st.tuples(st.integers(0, 12), st.integers(1, 8))
BOX = st.tuples(SPANS, SPANS).map(
    lambda spans: [spans[0][0], spans[1][0], sum(spans[0]), sum(spans[1])]
)


def _mask(boxes: list[list[int]]) -> np.ndarray:
    painted = np.zeros((20, 20), dtype=bool)
    for x0, y0, x1, y1 in boxes:
        painted[y0:y1, x0:x1] = True
    return painted


@given(BOX, st.lists(BOX, min_size=1, max_size=5))
@settings(max_examples=200)
def test_overlaps_equal_painted_masks(box: list[int], others: list[list[int]]) -> None:
    own, theirs = _mask([box]), _mask(others)
    expected = (own & theirs).sum() / (own | theirs).sum()
    assert union_iou(np.array(box, float), np.array(others, float)) == pytest.approx(expected)
    single = _mask(others[:1])
    expected = (own & single).sum() / (own | single).sum()
    assert iou(as_boxes(box), as_boxes(others[:1]))[0, 0] == pytest.approx(expected)


def _values(truth: list, predicted: list, several: str = "union") -> dict[str, float]:
    boxes = [as_boxes(one) for one in truth]
    panel = grounding_panel(boxes, as_boxes(predicted), several=several)
    assert panel.names == NAMES
    row = panel.statistic(np.ones((1, len(truth))))[0]
    return dict(zip(panel.names, row.tolist(), strict=True))


def test_by_hand() -> None:
    truth = [[[0, 0, 10, 10]]] * 4
    predicted = [[0, 0, 10, 5], [0, 0, 10, 2.5], [0, 0, 10, 2.4], [20, 20, 30, 30]]
    found = _values(truth, predicted)
    assert found["miou"] == pytest.approx((0.5 + 0.25 + 0.24 + 0) / 4)
    assert found["acc50"] == 1 / 4  # 0.5 itself counts
    assert found["acc25"] == 2 / 4
    assert found["pointing"] == 3 / 4


def test_a_centre_on_the_edge_points_right() -> None:
    assert _values([[[0, 0, 10, 10]]], [[5, 5, 15, 5.2]])["pointing"] == 1
    assert _values([[[0, 0, 10, 10]]], [[5.1, 5, 15, 5.2]])["pointing"] == 0


def test_no_predicted_box_is_a_miss_and_counts() -> None:
    found = _values([[[0, 0, 1, 1]], [[0, 0, 1, 1]]], [[np.nan] * 4, [0, 0, 1, 1]])
    assert found == {"miou": 0.5, "acc25": 0.5, "acc50": 0.5, "pointing": 0.5}


def test_of_several_true_boxes_the_rule_decides() -> None:
    truth = [[[0, 0, 1, 1], [2, 0, 3, 1]]]
    over_both, over_one = [[0, 0, 3, 1]], [[0, 0, 1, 1]]
    assert _values(truth, over_both, "union")["miou"] == pytest.approx(2 / 3)
    assert _values(truth, over_both, "best")["miou"] == pytest.approx(1 / 3)
    assert _values(truth, over_one, "union")["miou"] == pytest.approx(1 / 2)
    assert _values(truth, over_one, "best")["miou"] == 1
    assert _values(truth, over_both)["pointing"] == 0  # the centre lies between them


@given(st.lists(st.tuples(BOX, BOX), min_size=1, max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_with_one_true_box_both_rules_agree_in_any_order(pairs: list, random: object) -> None:
    truth = [as_boxes(one) for one, _ in pairs]
    predicted = as_boxes([other for _, other in pairs]).astype(float)
    union, best = (phrase_ious(truth, predicted, several=rule) for rule in ("union", "best"))
    np.testing.assert_allclose(union, best, atol=1e-12)
    order = list(range(len(pairs)))
    random.shuffle(order)
    first = grounding_panel(truth, predicted, several="union")
    second = grounding_panel([truth[i] for i in order], predicted[order], several="union")
    weights = np.arange(1.0, len(pairs) + 1)[None]
    np.testing.assert_allclose(
        first.statistic(weights), second.statistic(weights[:, order]), atol=1e-12
    )


def test_a_box_turned_inside_out_covers_nothing() -> None:
    assert areas(as_boxes([[1, 1, 0, 0]])).tolist() == [0]
    assert _values([[[0, 0, 1, 1]]], [[1, 1, 0, 0]])["miou"] == 0
    assert _values([[[0, 0, 1, 1], [2, 2, 3, 3]]], [[1, 1, 0, 0]])["miou"] == 0


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        ([[]], [[0, 0, 1, 1]], "a true box for every phrase, found 1 without"),
        ([[[0, 0, 0, 1]]], [[0, 0, 1, 1]], "found 1 without area"),
        ([[[0, 0, 1, 1]]], [[0, 0, np.nan, 1]], "all NaN for none, found 1 mixed"),
        ([[[0, 0, 1, 1]]], [[0, 0, np.inf, 1]], "all NaN for none, found 1 mixed"),
        ([[[0, 0, 1, 1]]] * 2, [[0, 0, 1, 1]], r"one predicted box per phrase \(2\), found 1"),
    ],
)
def test_what_cannot_be_scored_is_refused(truth: list, predicted: list, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        _values(truth, predicted)
