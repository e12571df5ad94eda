"""From a probe's predictions to AUROC per class, their mean, and the mean ROC curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lapvqa.errors import SchemaError
from lapvqa.metrics.auc import UNKNOWN, mean_and_class_aurocs, mean_roc_curve, why_undefined
from lapvqa.metrics.bootstrap import Measures

IMPLEMENTATION = (
    "lapvqa.metrics.auc: Mann-Whitney AUROC, ties count half (equal to scikit-learn's "
    "roc_auc_score); mean over the classes that are defined"
)
NOT_PREDICTED = "no predictions (one class only among the training images)"

CURVE_SYSTEMS = ("trained", "untrained")
CURVE_COLUMNS = ("fpr", *CURVE_SYSTEMS)
_GRID = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Matrix:
    """One system's predictions as arrays: samples in the order of their keys.

    ``targets`` int8 [n, L] (UNKNOWN where null or not predicted), ``scores`` [n, L] (0 where not
    predicted), ``undefined``: label -> reason.
    """

    samples: tuple[str, ...]
    patients: tuple[str, ...]
    targets: NDArray[np.int8]
    scores: NDArray[np.float64]
    undefined: dict[str, str]


def measure(predictions: pa.Table, *, labels: Sequence[str]) -> Measures:
    """Return mean_auc and auc/<label> of one system's predictions."""
    matrix = read_matrix(predictions, labels)
    undefined = {f"auc/{label}": reason for label, reason in matrix.undefined.items()}
    return Measures(
        names=("mean_auc", *(f"auc/{label}" for label in labels)),
        samples=matrix.samples,
        patients=matrix.patients,
        statistic=mean_and_class_aurocs(matrix.targets, matrix.scores),
        undefined={"mean_auc": "no class is defined", **undefined},
    )


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
        undefined=_undefined(labels, set(column.tolist()), targets),
    )


def mean_curves(
    predictions: pa.Table, *, labels: Sequence[str]
) -> tuple[tuple[float | None, ...], ...]:
    """Return rows of CURVE_COLUMNS: mean true positive rate at 101 false positive rates."""
    curves = []
    for system in CURVE_SYSTEMS:
        rows = predictions.filter(pc.equal(predictions["system"], system))
        matrix = read_matrix(rows, labels)
        curve = mean_roc_curve(matrix.targets, matrix.scores, _GRID)
        curves.append([None] * len(_GRID) if curve is None else curve.tolist())
    start = (0.0, *(None if curve[0] is None else 0.0 for curve in curves))
    return (start, *zip(_GRID.tolist(), *curves, strict=True))


def _columns(predictions: pa.Table, labels: Sequence[str]) -> NDArray[np.int64]:
    column = pc.index_in(predictions["label"], pa.array(labels, pa.string()))
    if column.null_count:
        unknown = sorted(set(predictions["label"].to_pylist()) - set(labels))
        raise _fault(f"labels {', '.join(labels)}, found {', '.join(unknown)}")
    found: NDArray[np.int64] = column.to_numpy().astype(np.int64)
    return found


def _undefined(
    labels: Sequence[str], predicted: set[int], targets: NDArray[np.int8]
) -> dict[str, str]:
    reasons = {}
    for index, label in enumerate(labels):
        reason = why_undefined(targets[:, index]) if index in predicted else NOT_PREDICTED
        if reason:
            reasons[label] = reason
    return reasons


def _fault(expected: str) -> SchemaError:
    return SchemaError(
        f"predictions.parquet: expected {expected}",
        hint="see schemas.PROBE_PREDICTIONS for the columns; run the evaluation again",
    )
