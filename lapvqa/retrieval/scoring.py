"""Score ranks: recall at 1, 5 and 10, and the mean reciprocal rank, each way and their mean."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lapvqa.errors import SchemaError
from lapvqa.evaluation import prediction_rows
from lapvqa.evaluation.task import CurveTable
from lapvqa.metrics.bootstrap import Array, Measures
from lapvqa.metrics.panel import Panel, class_names, measures, weighted_mean, with_mean

DIRECTIONS = ("report", "film")
"""What is looked for: the report of a film, the film of a report."""

CURVE_COLUMNS = ("k", *prediction_rows.FIRST)
_KS = (1, 5, 10)
_FIRST_KS = range(1, 51)


def measure(predictions: pa.Table) -> Measures:
    """Return mean_mrr, mrr/report, mrr/film and the same of recall1, recall5, recall10.

    Raises SchemaError for a repeated study or a rank below 1.
    """
    rows = prediction_rows.ordered(predictions)
    places = read_ranks(rows)
    values = {"mrr": 1 / places} | {f"recall{k}": found_within(places, k) for k in _KS}

    def statistic(weights: Array) -> Array:
        return np.column_stack(
            [with_mean(weighted_mean(both, weights)) for both in values.values()]
        )

    names = tuple(name for metric in values for name in class_names(metric, DIRECTIONS))
    panel = Panel(names=names, statistic=statistic)
    return measures(panel, samples=rows["sample"].to_pylist(), patients=rows["patient"].to_pylist())


def curves(predictions: pa.Table) -> CurveTable:
    """Return the share found within the first k, mean of both ways, a column per system."""

    def recalls(rows: pa.Table) -> Array:
        places = read_ranks(rows)
        return np.array([found_within(places, k).mean() for k in _FIRST_KS])

    return prediction_rows.curves(
        predictions, recalls, across=CURVE_COLUMNS[0], points=[float(k) for k in _FIRST_KS]
    )


def read_ranks(rows: pa.Table) -> NDArray[np.float64]:
    """Return the ranks [n, 2] in the order of DIRECTIONS; SchemaError if one is below 1."""
    places = np.column_stack([rows[f"{name}_rank"].to_numpy() for name in DIRECTIONS])
    if not (places >= 1).all():
        raise SchemaError(
            "predictions.parquet: expected ranks from 1, found one below",
            hint="see schemas.RETRIEVAL_PREDICTIONS for the columns; run the evaluation again",
        )
    return places.astype(np.float64)


def found_within(places: NDArray[np.float64], k: int) -> Array:
    """Return 1 where a rank is at most k, else 0; a tie counts by its middle."""
    return (places <= k).astype(np.float64)
