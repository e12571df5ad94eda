"""Which figure shows which result: intervals per metric, ROC and calibration per label, loss."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
from markupsafe import Markup

from lapvqa.report import figures
from lapvqa.report.curves import History, Point, calibration_by_label, roc_by_label
from lapvqa.report.figures import Axis, Line
from lapvqa.report.names import short_name, system_name
from lapvqa.report.results import Evaluation, Headline, Interval

_UNIT = (0.0, 0.25, 0.5, 0.75, 1.0)
_CHANCE_AUC = 0.5
_ONE = Axis(0, 1, _UNIT, "score, 0 to 1")
_SHARE = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class Panel:
    """One small plot; ``curves``: the points of each system."""

    label: str
    figure: Markup
    curves: dict[str, list[Point]]


def is_auc(evaluation: Evaluation) -> bool:
    """Tell whether the evaluation's numbers are areas under ROC curves."""
    return evaluation.primary == "mean_auc"


def headline_track(row: Headline) -> Markup:
    """Draw the two values of a row of the first table on a scale from 0 to 1."""
    trained, untrained = row.systems
    values = {trained: row.trained, untrained: row.untrained}
    said = ", ".join(f"{system_name(name)} {values[name]}" for name in values)
    return figures.single_track(values, axis=_ONE, label=f"On a scale from 0 to 1: {said}")


def interval_chart(evaluation: Evaluation) -> Markup:
    """Draw the charted metrics of every system with their intervals."""
    rows = {
        short_name(metric): {
            system: evaluation.interval(system, metric) for system in evaluation.systems
        }
        for metric in evaluation.charted_metrics
    }
    names = ", ".join(system_name(name) for name in evaluation.systems)
    return figures.interval_plot(
        rows,
        axis=_auc_axis(rows) if is_auc(evaluation) else _ONE,
        reference=_CHANCE_AUC if is_auc(evaluation) else None,
        label=f"{evaluation.task.title}: values with intervals for {names}. "
        "The numbers are in the tables that follow.",
    )


def _auc_axis(rows: dict[str, dict[str, Interval]]) -> Axis:
    """Start at 0.4 when nothing lies below, else at 0."""
    bounds = [
        bound
        for row in rows.values()
        for interval in row.values()
        for bound in (interval.value, interval.low)
        if bound is not None
    ]
    label = "area under the ROC curve; 0.5 is chance"
    if min(bounds, default=_CHANCE_AUC) >= 0.4:
        return Axis(0.4, 1, (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1), label)
    return Axis(0, 1, _UNIT, label)


def roc_charts(evaluation: Evaluation, predictions: pa.Table) -> list[Panel]:
    """Draw one ROC plot per label that has both classes (PROBE_PREDICTIONS)."""
    return [
        _square(
            evaluation, label, by_system, axes=("false positive rate", "true positive rate"),
            said="ROC curve", metric="auc",
        )
        for label, by_system in roc_by_label(predictions).items()
    ]  # fmt: skip


def calibration_charts(evaluation: Evaluation, predictions: pa.Table) -> list[Panel]:
    """Draw one calibration plot per label that has samples (PROBE_PREDICTIONS)."""
    return [
        _square(
            evaluation, label, by_system, axes=("probability given", "share found positive"),
            said="Calibration curve", metric="ece", dots=True,
        )
        for label, by_system in calibration_by_label(predictions).items()
    ]  # fmt: skip


def _square(
    evaluation: Evaluation,
    label: str,
    by_system: dict[str, list[Point]],
    *,
    axes: tuple[str, str],
    said: str,
    metric: str,
    dots: bool = False,
) -> Panel:
    """Draw the systems' curves over the unit square, and its diagonal."""
    # The trained encoder is drawn last, so that it lies on top.
    ordered = sorted(by_system, key=lambda name: name == "trained")
    curves = [Line(by_system[name], f"line {figures.css_class(name)}", dots) for name in ordered]
    key = f"{metric}/{label}"
    values = ", ".join(
        f"{system_name(name)} {evaluation.interval(name, key)}" for name in evaluation.systems
    )
    figure = figures.line_plot(
        [Line([(0, 0), (1, 1)], "chance"), *curves],
        x=Axis(0, 1, _SHARE, axes[0]),
        y=Axis(0, 1, _SHARE, axes[1]),
        label=f"{said} of {label}; {metric.upper()}: {values}",
        style="square",
    )
    return Panel(short_name(key), figure, {name: by_system[name] for name in ordered})


def loss_chart(history: History) -> Markup | None:
    """Draw training and validation loss; None if neither was recorded."""
    values = [value for _, value in [*history.train, *history.validation]]
    if not values:
        return None
    said = [f"Loss over {history.steps} steps"]
    if history.train:
        said.append(f"training loss ends at {history.train[-1][1]:.3f}")
    if history.best:
        said.append(f"lowest validation loss {history.best[1]:.3f} at step {history.best[0]:.0f}")
    ticks = figures.nice_axis([0, history.steps], "").ticks
    steps = tuple(tick for tick in ticks if tick <= history.steps)
    return figures.line_plot(
        [Line(history.train, "line train"), Line(history.validation, "line validation")],
        x=Axis(0, history.steps, steps, "optimiser step"),
        y=figures.nice_axis(values, "loss, nats per token"),
        label="; ".join(said) + ".",
        style="wide",
    )
