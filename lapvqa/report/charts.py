"""The charts of the page: intervals per metric, ROC and calibration per label, loss.

Points of curves are made of predictions and of training's history.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from lapvqa.errors import SchemaError
from lapvqa.evaluation.results import Headline, Interval
from lapvqa.metrics.classification import reliability
from lapvqa.report import figures
from lapvqa.report.figures import Axis, Line
from lapvqa.report.page_results import PageResult, short_name, system_name
from lapvqa.storage import require

Point = tuple[float, float]
_MAX_POINTS = 160  # enough for a small panel; keeps the page small for 25,000 test images
_UNIT = (0.0, 0.25, 0.5, 0.75, 1.0)
_CHANCE_AUC = 0.5
_ONE = Axis(0, 1, _UNIT, "score, 0 to 1")
_SHARE = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class PlotPanel:
    """One small plot; ``curves``: the points of each system."""

    label: str
    figure: Markup
    curves: dict[str, list[Point]]


def is_auc(result: PageResult) -> bool:
    """Tell whether the evaluation's numbers are areas under ROC curves."""
    return result.task.primary == "mean_auc"


def headline_track(row: Headline) -> Markup:
    """Draw the two values of a row of the first table on a scale from 0 to 1."""
    trained, untrained = row.systems
    values = {trained: row.trained, untrained: row.untrained}
    said = ", ".join(f"{system_name(name)} {values[name]}" for name in values)
    return figures.single_track(values, axis=_ONE, label=f"On a scale from 0 to 1: {said}")


def interval_chart(result: PageResult) -> Markup:
    """Draw the charted metrics of every system with their intervals."""
    rows = {
        short_name(metric): {system: result.interval(system, metric) for system in result.systems}
        for metric in result.charted_metrics
    }
    names = ", ".join(system_name(name) for name in result.systems)
    return figures.interval_plot(
        rows,
        axis=_auc_axis(rows) if is_auc(result) else _ONE,
        reference=_CHANCE_AUC if is_auc(result) else None,
        label=f"{result.task.title}: values with intervals for {names}. "
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


def roc_charts(result: PageResult, predictions: pa.Table) -> list[PlotPanel]:
    """Draw one ROC plot per label that has both classes (PROBE_PREDICTIONS)."""
    return [
        _square(
            result, label, by_system, axes=("false positive rate", "true positive rate"),
            said="ROC curve", metric="auc",
        )
        for label, by_system in roc_by_label(predictions).items()
    ]  # fmt: skip


def calibration_charts(result: PageResult, predictions: pa.Table) -> list[PlotPanel]:
    """Draw one calibration plot per label that has samples (PROBE_PREDICTIONS)."""
    return [
        _square(
            result, label, by_system, axes=("probability given", "share found positive"),
            said="Calibration curve", metric="ece", dots=True,
        )
        for label, by_system in calibration_by_label(predictions).items()
    ]  # fmt: skip


def _square(
    result: PageResult,
    label: str,
    by_system: dict[str, list[Point]],
    *,
    axes: tuple[str, str],
    said: str,
    metric: str,
    dots: bool = False,
) -> PlotPanel:
    """Draw the systems' curves over the unit square, and its diagonal."""
    # The trained encoder is drawn last, so that it lies on top.
    ordered = sorted(by_system, key=lambda name: name == "trained")
    curves = [Line(by_system[name], f"line {figures.css_class(name)}", dots) for name in ordered]
    key = f"{metric}/{label}"
    values = ", ".join(
        f"{system_name(name)} {result.interval(name, key)}" for name in result.systems
    )
    figure = figures.line_plot(
        [Line([(0, 0), (1, 1)], "chance"), *curves],
        x=Axis(0, 1, _SHARE, axes[0]),
        y=Axis(0, 1, _SHARE, axes[1]),
        label=f"{said} of {label}; {metric.upper()}: {values}",
        style="square",
    )
    return PlotPanel(short_name(key), figure, {name: by_system[name] for name in ordered})


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


def roc_points(target: npt.NDArray[np.integer], score: npt.NDArray[np.float64]) -> list[Point]:
    """Return (false positive rate, true positive rate) at each distinct score, (0,0) to (1,1).

    Ties move together, so the curve does not depend on the order of samples. Empty if one class
    is absent.
    """
    positives, negatives = int((target == 1).sum()), int((target == 0).sum())
    if not positives or not negatives:
        return []
    order = np.argsort(-score, kind="stable")
    target, score = target[order], score[order]
    last_of_tie = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)
    true_rate = np.cumsum(target == 1)[last_of_tie] / positives
    false_rate = np.cumsum(target == 0)[last_of_tie] / negatives
    points = [(0.0, 0.0), *zip(false_rate.tolist(), true_rate.tolist(), strict=True)]
    return _thin(points)


def _thin(points: list[Point]) -> list[Point]:
    if len(points) <= _MAX_POINTS:
        return points
    chosen = np.unique(np.linspace(0, len(points) - 1, _MAX_POINTS).round().astype(int))
    return [points[index] for index in chosen]


def calibration_points(
    target: npt.NDArray[np.integer], probability: npt.NDArray[np.float64]
) -> list[Point]:
    """Return (mean probability, share that is positive) of each bin that has samples."""
    bins = reliability(target.astype(np.int8), probability)
    return [
        (part.mean_probability, part.observed)
        for part in bins
        if part.mean_probability is not None and part.observed is not None
    ]


def roc_by_label(predictions: pa.Table) -> dict[str, dict[str, list[Point]]]:
    """Return label -> system -> ROC points of a PROBE_PREDICTIONS table, labels sorted."""
    return _by_label(predictions, roc_points)


def calibration_by_label(predictions: pa.Table) -> dict[str, dict[str, list[Point]]]:
    """Return label -> system -> calibration points of a PROBE_PREDICTIONS table."""
    return _by_label(predictions, calibration_points)


def _by_label(
    predictions: pa.Table, points_of: Callable[..., list[Point]]
) -> dict[str, dict[str, list[Point]]]:
    known = predictions.filter(pc.is_valid(predictions["target"]))
    curves: dict[str, dict[str, list[Point]]] = {}
    for label in sorted(pc.unique(known["label"]).to_pylist()):
        of_label = known.filter(pc.equal(known["label"], label))
        for system in sorted(pc.unique(of_label["system"]).to_pylist()):
            part = of_label.filter(pc.equal(of_label["system"], system))
            points = points_of(part["target"].to_numpy(), part["score"].to_numpy())
            if points:
                curves.setdefault(label, {})[system] = points
    return curves


@dataclass(frozen=True)
class History:
    """Loss over steps: training (thinned) and validation, where measured."""

    train: Sequence[Point]
    validation: Sequence[Point]
    steps: int
    epochs: int

    @property
    def best(self) -> Point | None:
        """Step and value of the lowest validation loss."""
        return min(self.validation, key=lambda point: point[1], default=None)


def read_history(path: Path) -> History:
    """Read history.csv (step, epoch, loss, lr, val_loss; empty cells where not measured)."""
    require(path, made_by="pretrain")
    with path.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    try:
        train = _column(rows, "loss")
        return History(
            train=_smooth(train),
            validation=_column(rows, "val_loss"),
            steps=max((int(row["step"]) for row in rows), default=0),
            epochs=max((int(float(row["epoch"])) for row in rows), default=0),
        )
    except (KeyError, ValueError) as error:
        raise SchemaError(
            f"{path.name}: expected columns step, epoch, loss, lr, val_loss; "
            f"found something else at {error}",
            hint="run `lapvqa run --stage pretrain` again",
        ) from error


def _column(rows: list[dict[str, str]], name: str) -> list[Point]:
    points = [(float(row["step"]), float(row[name])) for row in rows if row[name]]
    return [point for point in points if np.isfinite(point[1])]


def _smooth(points: list[Point]) -> list[Point]:
    """Average neighbouring steps so that at most ``_MAX_POINTS`` remain."""
    size = -(-len(points) // _MAX_POINTS) or 1
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [
        (sum(step for step, _ in group) / len(group), sum(loss for _, loss in group) / len(group))
        for group in groups
    ]
