"""AUPRC against scikit-learn, by hand, and where it has no value."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from resampling import clustered_interval
from sklearn.metrics import average_precision_score

from lapvqa.metrics.classification import UNKNOWN, auprc_panel, auroc_panel, average_precision


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets of both classes and unknown ones, scores with many ties, weights with zeros."""
    n = draw(st.integers(2, 40))
    targets = draw(st.lists(st.sampled_from([0, 1, UNKNOWN]), min_size=n, max_size=n))
    targets[0], targets[1] = 0, 1
    scores = draw(st.lists(st.integers(0, draw(st.integers(1, 8))), min_size=n, max_size=n))
    weights = draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))
    weights[0] += 1
    weights[1] += 1
    return np.array(targets, dtype=np.int8), np.array(scores) / 7, np.array(weights, dtype=float)


@given(problems())
@settings(max_examples=300)
def test_equal_to_scikit_learn_with_ties_and_weights(problem: tuple) -> None:
    targets, scores, weights = problem
    known = targets != UNKNOWN
    expected = average_precision_score(targets[known], scores[known], sample_weight=weights[known])
    found = average_precision(targets, scores, weights[None])[0]
    assert found == pytest.approx(expected, abs=1e-12)


@given(problems(), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_the_order_of_samples_does_not_matter(problem: tuple, random: object) -> None:
    targets, scores, weights = problem
    order = list(range(len(targets)))
    random.shuffle(order)
    first = average_precision(targets, scores, weights[None])
    second = average_precision(targets[order], scores[order], weights[None, order])
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-12)


def test_by_hand() -> None:
    # Ranked 1, 0, 1: precision 1 at the first half of recall, 2/3 at the second.
    targets = np.array([1, 0, 1], dtype=np.int8)
    found = average_precision(targets, np.array([0.9, 0.8, 0.1]), np.ones((1, 3)))
    assert found[0] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_weights_are_repetitions() -> None:
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 2, 50).astype(np.int8)
    scores = np.round(generator.random(50), 1)
    times = generator.integers(0, 4, 50)
    repeated = np.repeat(np.arange(50), times)
    expected = average_precision_score(targets[repeated], scores[repeated])
    assert average_precision(targets, scores, times[None] * 1.0)[0] == pytest.approx(expected)


def test_undefined_classes_are_null_named_and_not_in_the_mean() -> None:
    targets = np.array([[1, 0, 1, -1], [0, 0, 1, -1], [1, 0, 1, -1]], dtype=np.int8)
    scores = np.array([[0.9, 0.1, 0.2, 0.0], [0.5, 0.2, 0.3, 0.0], [0.7, 0.3, 0.1, 0.0]])
    panel = auprc_panel(targets, scores, labels=("a", "b", "c", "d"))
    assert panel.names == ("mean_auprc", "auprc/a", "auprc/b", "auprc/c", "auprc/d")
    found = clustered_interval(panel.statistic, tuple("xyz"), draws=20, confidence=0.95, seed=0)
    assert [one.value for one in found] == [1.0, 1.0, None, None, None]
    assert panel.undefined["auprc/b"] == "no positives"
    assert panel.undefined["auprc/c"] == "no negatives"
    assert panel.undefined["auprc/d"] == "no sample with a known value"
    assert "auprc/a" not in panel.undefined
    same = auroc_panel(targets, scores, labels=("a", "b", "c", "d"))
    assert [one.split("/")[-1] for one in same.undefined if "/" in one] == ["b", "c", "d"]


def test_a_random_ranking_gives_the_prevalence() -> None:
    generator = np.random.default_rng(4)
    targets = (generator.random(20_000) < 0.1).astype(np.int8)
    found = average_precision(targets, generator.random(20_000), np.ones((1, 20_000)))
    assert found[0] == pytest.approx(targets.mean(), abs=0.01)
