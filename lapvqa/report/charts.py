"""Which figure shows which result: intervals per metric, ROC per label, loss over steps."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
from markupsafe import Markup

from lapvqa.report import figures
from lapvqa.report.curves import History, roc_by_label
from lapvqa.report.figures import Axis, Line
from lapvqa.report.results import SYSTEMS, Evaluation, Interval, metric_name

_UNIT = (0.0, 0.25, 0.5, 0.75, 1.0)
_CHANCE_AUC = 0.5


@dataclass(frozen=True)
class Panel:
    """One small ROC plot."""

    label: str
    figure: Markup


def is_auc(evaluation: Evaluation) -> bool:
    """Tell whether the evaluation's numbers are areas under ROC curves."""
    return evaluation.primary == "mean_auc"


def interval_chart(evaluation: Evaluation) -> Markup:
    """Draw every metric of every system with its interval."""
    rows = {
        metric_name(metric): {
            system: evaluation.interval(system, metric) for system in evaluation.systems
        }
        for metric in evaluation.metrics
    }
    names = ", ".join(SYSTEMS.get(name, name) for name in evaluation.systems)
    return figures.interval_plot(
        rows,
        axis=_auc_axis(rows) if is_auc(evaluation) else Axis(0, 1, _UNIT, "score, 0 to 1"),
        reference=_CHANCE_AUC if is_auc(evaluation) else None,
        label=f"{evaluation.task.title}: values with intervals for {names}. "
        "The numbers are in the table that follows.",
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
        Panel(metric_name(f"auc/{label}"), _roc_chart(evaluation, label, by_system))
        for label, by_system in roc_by_label(predictions).items()
    ]


def _roc_chart(
    evaluation: Evaluation, label: str, by_system: dict[str, list[tuple[float, float]]]
) -> Markup:
    # The trained encoder is drawn last, so that it lies on top.
    ordered = sorted(by_system, key=lambda name: name == "trained")
    curves = [Line(by_system[name], f"line {figures.css_class(name)}") for name in ordered]
    areas = ", ".join(
        f"{SYSTEMS.get(name, name)} {evaluation.interval(name, f'auc/{label}')}"
        for name in evaluation.systems
    )
    return figures.line_plot(
        [Line([(0, 0), (1, 1)], "chance"), *curves],
        x=Axis(0, 1, (0, 0.5, 1), "false positive rate"),
        y=Axis(0, 1, (0, 0.5, 1), "true positive rate"),
        label=f"ROC curve of {label}; area: {areas}",
        style="square",
    )


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
