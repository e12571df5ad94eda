"""Two systems on the same samples, and panels side by side."""

from __future__ import annotations

import numpy as np
import pytest
from resampling import compare

from lapvqa.metrics.bootstrap import draw_values, interval
from lapvqa.metrics.classification import auprc_panel, auroc_panel
from lapvqa.metrics.panel import measures, not_computed, side_by_side, weighted_ratio

OPTIONS = {"draws": 400, "confidence": 0.95, "seed": 0}


def _systems(better: float, *, seed: int = 0, patients: int = 100):
    generator = np.random.default_rng(seed)
    targets = np.repeat(generator.random(patients) < 0.5, 2).astype(np.int8)[:, None]
    person = np.repeat(generator.normal(size=patients), 2)[:, None]
    names = [f"p{i // 2}" for i in range(2 * patients)]
    samples = [f"s{i}" for i in range(2 * patients)]
    return [
        measures(
            auroc_panel(
                targets,
                targets * shift + person + generator.normal(scale=0.5, size=targets.shape),
                labels=("a",),
            ),
            samples=samples,
            patients=names,
        )
        for shift in (1 + better, 1)
    ]


def test_a_planted_difference_is_seen_and_its_sign_follows_the_order() -> None:
    first, second = _systems(1.5)
    found = compare(first, second, **OPTIONS)["auc/a"]
    assert found.low > 0
    assert found.p_value == pytest.approx(2 / 401)
    turned = compare(second, first, **OPTIONS)["auc/a"]
    assert (turned.value, turned.low, turned.high) == pytest.approx(
        (-found.value, -found.high, -found.low)
    )


def test_equal_systems_differ_by_nothing() -> None:
    first, _ = _systems(0)
    found = compare(first, first, **OPTIONS)["auc/a"]
    assert found == (found.__class__)(0.0, 0.0, 0.0, 1.0)


def test_it_is_the_difference_on_the_same_draws() -> None:
    first, second = _systems(0.3)
    found = compare(first, second, **OPTIONS)["mean_auc"]
    values = [
        draw_values(one.statistic, one.patients, draws=400, seed=0) for one in (first, second)
    ]
    expected = interval(values[0][:, 0] - values[1][:, 0], confidence=0.95)
    assert (found.value, found.low, found.high) == expected


def test_p_values_under_the_null_reject_about_5_in_100() -> None:
    rejected = sum(
        compare(*_systems(0, seed=seed, patients=60), draws=200, confidence=0.95, seed=seed)[
            "auc/a"
        ].p_value
        < 0.05
        for seed in range(300)
    )
    assert 0.02 <= rejected / 300 <= 0.09


def test_undefined_differences_have_no_numbers() -> None:
    panel = not_computed(("x",), "not computed: weights not given")
    one = measures(panel, samples=["a", "b"], patients=["a", "b"])
    found = compare(one, one, **OPTIONS)["x"]
    assert (found.value, found.low, found.high, found.p_value) == (None, None, None, None)
    assert one.undefined["x"] == "not computed: weights not given"


def test_panels_stand_side_by_side_once() -> None:
    targets = np.array([[1], [0], [1], [0]], dtype=np.int8)
    scores = np.array([[0.9], [0.8], [0.7], [0.1]])
    both = side_by_side(
        auroc_panel(targets, scores, labels=("a",)), auprc_panel(targets, scores, labels=("a",))
    )
    assert both.names == ("mean_auc", "auc/a", "mean_auprc", "auprc/a")
    values = both.statistic(np.ones((1, 4)))[0]
    assert values == pytest.approx([0.75, 0.75, 5 / 6, 5 / 6])
    with pytest.raises(ValueError, match="found twice: auc/a, mean_auc"):
        side_by_side(*[auroc_panel(targets, scores, labels=("a",))] * 2)
    with pytest.raises(ValueError, match="1 samples, but 2 patients"):
        measures(both, samples=["a"], patients=["a", "b"])


def test_a_ratio_over_nothing_is_nan() -> None:
    assert np.isnan(weighted_ratio(np.array([1.0]), np.array([0.0])))[0]
