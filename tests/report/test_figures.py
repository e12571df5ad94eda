"""Points, axes and marks: against scikit-learn and by hand."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from lapvqa.evaluation.results import Interval
from lapvqa.report.charts import roc_points
from lapvqa.report.figures import Axis, Line, interval_plot, line_plot, nice_axis
from lapvqa.report.page_results import flatten


@pytest.mark.parametrize("digits", [1, 6])  # with and without ties
def test_roc_points_equal_scikit_learn(digits: int) -> None:
    generator = np.random.default_rng(3)
    target = generator.integers(0, 2, 100)
    score = np.round(generator.random(100), digits)
    false_rate, true_rate, _ = roc_curve(target, score, drop_intermediate=False)
    np.testing.assert_allclose(roc_points(target, score), np.stack([false_rate, true_rate], 1))


def test_roc_of_one_class_has_no_points() -> None:
    assert roc_points(np.ones(5, dtype=int), np.arange(5.0)) == []


def test_long_roc_is_thinned_but_keeps_its_ends_and_area() -> None:
    generator = np.random.default_rng(0)
    target = generator.integers(0, 2, 20_000)
    score = target + generator.normal(size=20_000)
    points = np.array(roc_points(target, score))
    assert len(points) <= 160
    assert points[0].tolist() == [0, 0]
    assert points[-1].tolist() == [1, 1]
    false_rate, true_rate, _ = roc_curve(target, score)
    area = np.trapezoid(points[:, 1], points[:, 0])
    assert abs(area - np.trapezoid(true_rate, false_rate)) < 1e-3


@given(
    st.lists(st.floats(-1e6, 1e6).map(lambda value: round(value, 6)), min_size=1, max_size=20),
    st.integers(2, 8),
)
def test_axis_covers_its_values_with_few_rising_ticks(values: list[float], count: int) -> None:
    axis = nice_axis(values, "x", count=count)
    assert axis.low <= min(values) <= max(values) <= axis.high
    assert list(axis.ticks) == sorted(set(axis.ticks))
    assert 2 <= len(axis.ticks) <= count + 3


def test_axis_has_round_ticks() -> None:
    assert nice_axis([0, 600], "x").ticks == (0, 200, 400, 600)
    assert nice_axis([1.13, 9.2], "x").ticks == (0, 2, 4, 6, 8, 10)


def test_line_plot_puts_points_where_they_belong() -> None:
    axis = Axis(0, 2, (0, 1, 2), "x")
    drawn = line_plot([Line([(0, 0), (1, 2)], "line train")], x=axis, y=axis, label="l", style="s")
    assert 'points="0,1000 500,0"' in drawn


def test_interval_plot_places_marks_and_leaves_undefined_ones_out() -> None:
    rows = {
        "A": {"trained": Interval(0.75, 0.5, 1.0), "untrained": Interval(None)},
        "B": {"trained": Interval(None), "untrained": Interval(None)},
    }
    drawn = str(interval_plot(rows, axis=Axis(0, 1, (0, 1), "x"), reference=None, label="l"))
    marks = re.findall(r'class="trained"><line x1="([\d.]+)%" x2="([\d.]+)%"', drawn)
    assert marks == [("50", "100")]
    assert '<svg x="75%"' in drawn
    assert drawn.count(">undefined<") == 2  # one system of A, and the whole of B


def test_flatten_keeps_every_leaf_sorted() -> None:
    nested = {"b": {"y": [1, 2.5], "x": None}, "a": True}
    assert list(flatten(nested).items()) == [("a", "yes"), ("b.x", "none"), ("b.y", "1, 2.5")]
