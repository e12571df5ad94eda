"""Score a probe's predictions: per class, their means, and the mean ROC curve.

AUROC and AUPRC ask whether the ranking is right, Brier score and ECE whether the probabilities are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lapvqa.errors import SchemaError
from lapvqa.evaluation import prediction_rows
from lapvqa.evaluation.task import CurveTable
from lapvqa.metrics.bootstrap import Array, Measures
from lapvqa.metrics.classification import (
    UNKNOWN,
    auprc_panel,
    auroc_panel,
    calibration_panel,
    mean_roc_curve,
)
from lapvqa.metrics.panel import Panel, measures, side_by_side

IMPLEMENTATION = (
    "lapvqa.metrics.auc: Mann-Whitney AUROC, ties count half (equal to scikit-learn's "
    "roc_auc_score); mean over the classes that are defined"
)
NOT_PREDICTED = "no predictions (one class only among the training images)"

METRICS = ("auc", "auprc", "brier", "ece")
CURVE_COLUMNS = ("fpr", *prediction_rows.FIRST)
_GRID = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Matrix:
    """One system's predictions as arrays: samples in the order of their keys.

    ``targets`` int8 [n, L] (UNKNOWN where null or not predicted), ``scores`` [n, L] (0 where not
    predicted), ``not_predicted``: labels without a row.
    """

    samples: tuple[str, ...]
    patients: tuple[str, ...]
    targets: NDArray[np.int8]
    scores: NDArray[np.float64]
    not_predicted: tuple[str, ...]


def measure(predictions: pa.Table, *, labels: Sequence[str] | None) -> Measures:
    """Return mean and classes of METRICS, mean_auc, auc/<label> .., of one system's predictions.

    ``labels``: those of the data set; None: those that were predicted. Raises SchemaError as
    ``read_matrix``, and for a score that is no probability.
    """
    labels = _predicted(predictions) if labels is None else labels
    matrix = read_matrix(predictions, labels)
    arrays = matrix.targets, matrix.scores
    panel = side_by_side(
        auroc_panel(*arrays, labels=labels),
        auprc_panel(*arrays, labels=labels),
        calibration_panel(*arrays, labels=labels),
    )
    reasons = {
        f"{metric}/{label}": NOT_PREDICTED for metric in METRICS for label in matrix.not_predicted
    }
    explained = Panel(
        names=panel.names, statistic=panel.statistic, undefined={**panel.undefined, **reasons}
    )
    return measures(explained, samples=matrix.samples, patients=matrix.patients)


def read_matrix(predictions: pa.Table, labels: Sequence[str]) -> Matrix:
    """Arrange the rows of one system by sample and label.

    Raises SchemaError for an unknown label, a repeated sample, a score that is no number, or a
    sample under two patients.
    """
    sample_names = predictions["sample"].to_numpy()
    samples, first, row = np.unique(sample_names, return_index=True, return_inverse=True)
    column = _columns(predictions, labels)
    patients = predictions["patient"].to_numpy()
    scores_given = predictions["score"].to_numpy()
    if len(set(zip(row.tolist(), column.tolist(), strict=True))) != len(row):
        raise _fault("one row per sample and label of a system, found repeated rows")
    if not np.isfinite(scores_given).all():
        raise _fault("a finite score in every row, found NaN or infinity")
    if (patients != patients[first][row]).any():
        raise _fault("one patient per sample, found samples under two")
    targets = np.full((len(samples), len(labels)), UNKNOWN, dtype=np.int8)
    scores = np.zeros(targets.shape)
    targets[row, column] = pc.fill_null(predictions["target"], UNKNOWN).to_numpy()
    scores[row, column] = scores_given
    return Matrix(
        samples=tuple(samples.tolist()),
        patients=tuple(patients[first].tolist()),
        targets=targets,
        scores=scores,
        not_predicted=tuple(
            label for index, label in enumerate(labels) if not (column == index).any()
        ),
    )


def curves(predictions: pa.Table, *, labels: Sequence[str] | None) -> CurveTable:
    """Return the mean true positive rate at 101 false positive rates, a column per system."""
    known = _predicted(predictions) if labels is None else labels

    def mean_curve(rows: pa.Table) -> Array:
        matrix = read_matrix(rows, known)
        curve = mean_roc_curve(matrix.targets, matrix.scores, _GRID)
        return np.full(len(_GRID) + 1, np.nan) if curve is None else np.append(0.0, curve)

    points = (0.0, *_GRID.tolist())
    return prediction_rows.curves(predictions, mean_curve, across=CURVE_COLUMNS[0], points=points)


def _predicted(predictions: pa.Table) -> list[str]:
    return sorted(pc.unique(predictions["label"]).to_pylist())


def _columns(predictions: pa.Table, labels: Sequence[str]) -> NDArray[np.int64]:
    column = pc.index_in(predictions["label"], pa.array(labels, pa.string()))
    if column.null_count:
        unknown = sorted(set(predictions["label"].to_pylist()) - set(labels))
        raise _fault(f"labels {', '.join(labels)}, found {', '.join(unknown)}")
    numbers: NDArray[np.int64] = column.to_numpy().astype(np.int64)
    return numbers


def _fault(expected: str) -> SchemaError:
    return SchemaError(
        f"predictions.parquet: expected {expected}",
        hint="see schemas.PROBE_PREDICTIONS for the columns; run the evaluation again",
    )
