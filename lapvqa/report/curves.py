"""Points of the curves: ROC and calibration from predictions, loss from training's history."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lapvqa.errors import SchemaError
from lapvqa.metrics.classification import reliability
from lapvqa.storage import require

Point = tuple[float, float]
_MAX_POINTS = 160  # enough for a small panel; keeps the page small for 25,000 test images


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
        (one.mean_probability, one.observed)
        for one in bins
        if one.mean_probability is not None and one.observed is not None
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
