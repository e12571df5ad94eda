"""AUROC against scikit-learn, by hand, and on data where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from resampling import clustered_interval
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from lapvqa.metrics.classification import (
    UNKNOWN,
    auroc,
    mean_and_class_aurocs,
    mean_roc_curve,
    roc_curve,
    why_undefined,
)


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets with both classes, scores with many ties, weights with zeros."""
    n = draw(st.integers(2, 40))
    targets = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    targets[0], targets[1] = 0, 1
    levels = draw(st.integers(1, 8))  # few levels: ties within and across the classes
    scores = draw(st.lists(st.integers(0, levels), min_size=n, max_size=n))
    weights = draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))
    weights[0] += 1
    weights[1] += 1
    return (
        np.array(targets, dtype=np.int8),
        np.array(scores) / 7,
        np.array(weights, dtype=np.float64),
    )


@given(problems())
@settings(max_examples=300)
def test_equal_to_scikit_learn_with_ties_and_weights(problem: tuple) -> None:
    targets, scores, weights = problem
    expected = roc_auc_score(targets, scores, sample_weight=weights)
    assert auroc(targets, scores, weights[None])[0] == pytest.approx(expected, abs=1e-12)


def test_many_weightings_at_once_equal_one_by_one() -> None:
    generator = np.random.default_rng(3)
    targets = generator.integers(0, 2, 500).astype(np.int8)
    scores = np.round(generator.normal(size=500), 1)
    weights = generator.random((20, 500))
    expected = [roc_auc_score(targets, scores, sample_weight=row) for row in weights]
    np.testing.assert_allclose(auroc(targets, scores, weights), expected, rtol=0, atol=1e-12)


def test_by_hand() -> None:
    # Pairs (positive, negative): .9>.4 yes, .9>.5 yes, .5>.4 yes, .5=.5 half -> 3.5 / 4.
    targets = np.array([1, 0, 1, 0], dtype=np.int8)
    scores = np.array([0.9, 0.4, 0.5, 0.5])
    assert auroc(targets, scores, np.ones((1, 4)))[0] == 3.5 / 4


def test_unknown_targets_are_left_out() -> None:
    targets = np.array([1, 0, UNKNOWN, 0, 1, UNKNOWN], dtype=np.int8)
    scores = np.array([0.2, 0.4, 9.0, 0.1, 0.8, -9.0])
    known = targets != UNKNOWN
    expected = roc_auc_score(targets[known], scores[known])
    assert auroc(targets, scores, np.ones((1, 6)))[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("targets", "reason"),
    [
        ([0, 0, 0], "no positives"),
        ([1, 1, 1], "no negatives"),
        ([-1, -1, -1], "no sample with a known value"),
        ([1, 0, -1], None),
    ],
)
def test_one_class_is_undefined_and_says_why(targets: list[int], reason: str | None) -> None:
    column = np.array(targets, dtype=np.int8)
    assert why_undefined(column) == reason
    value = auroc(column, np.array([0.1, 0.2, 0.3]), np.ones((1, 3)))[0]
    assert np.isnan(value) == (reason is not None)


def test_a_class_that_no_draw_weighs_is_undefined_in_that_draw_only() -> None:
    targets = np.array([1, 0, 0], dtype=np.int8)
    weights = np.array([[1.0, 1, 1], [0, 1, 1]])
    assert np.isnan(auroc(targets, np.array([0.3, 0.2, 0.1]), weights)).tolist() == [False, True]


def test_mean_is_over_defined_classes() -> None:
    targets = np.array([[1, 0], [0, 0], [1, 0]], dtype=np.int8)
    scores = np.array([[0.9, 0.1], [0.5, 0.2], [0.1, 0.3]])
    values = mean_and_class_aurocs(targets, scores)(np.ones((1, 3)))[0]
    np.testing.assert_array_equal(values, [0.5, 0.5, np.nan])


def test_permuted_labels_give_a_half_and_the_interval_covers_it() -> None:
    generator = np.random.default_rng(1)
    targets = generator.permutation(np.repeat([0, 1], [700, 300])).astype(np.int8)[:, None]
    scores = generator.normal(size=(1000, 1))
    patients = [f"p{i // 2}" for i in range(1000)]
    mean, single = clustered_interval(
        mean_and_class_aurocs(targets, scores), patients, draws=300, confidence=0.95, seed=0
    )
    assert mean == single
    assert mean.value == pytest.approx(0.5, abs=0.05)
    assert mean.low < 0.5 < mean.high


def test_planted_signal_is_seen_and_permuting_it_is_seen_too() -> None:
    generator = np.random.default_rng(2)
    targets = np.repeat([0, 1], 100).astype(np.int8)
    scores = targets + generator.normal(scale=0.2, size=200)
    weights = np.ones((1, 200))
    assert auroc(targets, scores, weights)[0] > 0.99
    assert auroc(generator.permutation(targets), scores, weights)[0] < 0.65


@given(problems())
@settings(max_examples=100)
def test_roc_curve_passes_through_scikit_learns_points(problem: tuple) -> None:
    targets, scores, _ = problem
    fpr, tpr, _ = sklearn_roc_curve(targets, scores, drop_intermediate=False)
    upper = np.maximum.accumulate(tpr)  # at a jump our curve has the upper end
    last = np.append(np.diff(fpr) > 0, True)
    np.testing.assert_allclose(roc_curve(targets, scores, fpr[last]), upper[last], atol=1e-12)


def test_area_under_the_mean_curve_is_the_mean_auroc() -> None:
    generator = np.random.default_rng(5)
    targets = generator.integers(0, 2, (400, 3)).astype(np.int8)
    scores = targets * 0.8 + generator.normal(size=(400, 3))
    grid = np.linspace(0, 1, 20001)
    curve = mean_roc_curve(targets, scores, grid)
    expected = mean_and_class_aurocs(targets, scores)(np.ones((1, 400)))[0, 0]
    assert np.trapezoid(curve, grid) == pytest.approx(expected, abs=1e-4)
    assert (np.diff(curve) >= 0).all()
    assert curve[-1] == 1


def test_no_curve_without_a_defined_class() -> None:
    targets = np.zeros((3, 2), dtype=np.int8)
    assert mean_roc_curve(targets, np.ones((3, 2)), np.linspace(0, 1, 3)) is None
