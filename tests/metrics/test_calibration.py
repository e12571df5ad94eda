"""Brier score, calibration error and reliability curve against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from lapvqa.errors import SchemaError
from lapvqa.metrics.classification import (
    UNKNOWN,
    bin_of,
    brier,
    calibration_panel,
    expected_calibration_error,
    reliability,
)

ROWS = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 30), st.integers(1, 4)), min_size=2, max_size=60
)


def _arrays(rows: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    targets, scores, weights = (np.array(column) for column in zip(*rows, strict=True))
    return targets.astype(np.int8), scores / 30, weights.astype(float)  # 30ths: bins' edges too


@given(ROWS)
@settings(max_examples=200)
def test_brier_equals_scikit_learn(rows: list) -> None:
    targets, scores, weights = _arrays(rows)
    expected = brier_score_loss(targets, scores, sample_weight=weights, pos_label=1)
    assert brier(targets, scores, weights[None])[0] == pytest.approx(expected, abs=1e-12)


@given(ROWS, st.integers(2, 15))
@settings(max_examples=200)
def test_reliability_equals_scikit_learn(rows: list, num_bins: int) -> None:
    targets, scores, _ = _arrays(rows)
    # Scores off the edges: there the two libraries' floating edges may differ in the last bit.
    scores = np.clip(scores + 1e-4, 0, 1)
    observed, mean = calibration_curve(targets, scores, n_bins=num_bins)
    filled = [one for one in reliability(targets, scores, num_bins=num_bins) if one.num_samples]
    np.testing.assert_allclose([one.observed for one in filled], observed, atol=1e-12)
    np.testing.assert_allclose([one.mean_probability for one in filled], mean, atol=1e-12)


@given(ROWS)
@settings(max_examples=100)
def test_ece_is_the_weighted_gap_of_the_reliability_curve(rows: list) -> None:
    targets, scores, _ = _arrays(rows)
    bins = [one for one in reliability(targets, scores) if one.num_samples]
    expected = sum(
        one.num_samples / len(targets) * abs(one.mean_probability - one.observed) for one in bins
    )
    found = expected_calibration_error(targets, scores, np.ones((1, len(targets))))
    assert found[0] == pytest.approx(expected, abs=1e-12)


def test_weights_are_repetitions() -> None:
    generator = np.random.default_rng(0)
    targets, scores = generator.integers(0, 2, 80).astype(np.int8), generator.random(80)
    times = generator.integers(0, 3, 80)
    again = np.repeat(np.arange(80), times)
    for metric in (brier, expected_calibration_error):
        weighted = metric(targets, scores, times[None] * 1.0)
        repeated = metric(targets[again], scores[again], np.ones((1, len(again))))
        assert weighted[0] == pytest.approx(repeated[0], abs=1e-12)


def test_by_hand() -> None:
    # Bin (0.6, 0.8] of five holds 0.7, 0.8: mean 0.75, observed 0.5; bin [0, 0.2] holds 0.1: 0.1.
    targets = np.array([1, 0, 0], dtype=np.int8)
    scores = np.array([0.7, 0.8, 0.1])
    found = expected_calibration_error(targets, scores, np.ones((1, 3)), num_bins=5)
    assert found[0] == pytest.approx(2 / 3 * 0.25 + 1 / 3 * 0.1)
    assert brier(targets, scores, np.ones((1, 3)))[0] == pytest.approx((0.09 + 0.64 + 0.01) / 3)


def test_bins_are_closed_on_the_right() -> None:
    assert bin_of(np.array([0.0, 0.25, 0.2500001, 0.5, 1.0]), 4).tolist() == [0, 0, 1, 1, 3]


def test_empty_bins_have_no_point() -> None:
    curve = reliability(np.array([1, UNKNOWN], dtype=np.int8), np.array([0.9, 0.1]), num_bins=2)
    assert curve[0] == (0.0, 0.5, 0, None, None)
    assert curve[1] == (0.5, 1.0, 1, 0.9, 1.0)


def test_a_calibrated_system_has_a_small_error_and_an_overconfident_one_a_large_one() -> None:
    generator = np.random.default_rng(1)
    chances = generator.random(20_000)
    targets = (generator.random(20_000) < chances).astype(np.int8)[:, None]
    sure = (chances > 0.5).astype(float)
    ones = np.ones((1, 20_000))
    good = calibration_panel(targets, chances[:, None], labels=("a",)).statistic(ones)[0]
    bad = calibration_panel(targets, sure[:, None], labels=("a",)).statistic(ones)[0]
    assert good[0] == pytest.approx(1 / 6, abs=0.01)  # the mean of p (1 - p), p uniform
    assert good[2] < 0.02
    assert bad[2] == pytest.approx(0.25, abs=0.02)


def test_unknown_targets_do_not_count_and_all_unknown_is_undefined() -> None:
    targets = np.array([[1, -1], [-1, -1]], dtype=np.int8)
    panel = calibration_panel(targets, np.array([[0.5, 0.5], [0.1, 0.5]]), labels=("a", "b"))
    values = dict(zip(panel.names, panel.statistic(np.ones((1, 2)))[0], strict=True))
    assert values["brier/a"] == values["mean_brier"] == 0.25
    assert np.isnan(values["brier/b"])
    assert np.isnan(values["ece/b"])
    assert panel.undefined["ece/b"] == "no sample with a known value"


@pytest.mark.parametrize("score", [1.2, -0.1, float("nan")])
def test_what_is_no_probability_is_refused(score: float) -> None:
    with pytest.raises(SchemaError, match=r"in \[0, 1\], found 1 outside"):
        calibration_panel(np.zeros((1, 1), dtype=np.int8), np.array([[score]]), labels=("a",))
