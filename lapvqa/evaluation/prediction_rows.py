"""Predictions by system: the systems present, one system's rows in order, a curve for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lapvqa.errors import SchemaError
from lapvqa.evaluation.task import CurveTable
from lapvqa.metrics.replicates import heads_by_system, rows_of

FIRST = ("trained", "untrained")
"""The pipeline's systems, which lead every table."""


def systems_of(predictions: pa.Table) -> tuple[str, ...]:
    """Return the systems present: trained, untrained, then the others by name."""
    present = set(heads_by_system(pc.unique(predictions["system"]).to_pylist()))
    return (*(name for name in FIRST if name in present), *sorted(present.difference(FIRST)))


def ordered(predictions: pa.Table) -> pa.Table:
    """Return one system's rows by sample; raises SchemaError for a sample that occurs twice."""
    rows = predictions.sort_by("sample").combine_chunks()
    repeated = rows.num_rows - len(pc.unique(rows["sample"]))
    if repeated:
        raise SchemaError(
            f"predictions.parquet: expected one row per sample and system, found {repeated} "
            "repeated rows",
            hint="see the task's table in lapvqa.schemas; run the evaluation again",
        )
    return rows


def curves(
    predictions: pa.Table,
    values: Callable[[pa.Table], Iterable[float]],
    *,
    across: str,
    points: Sequence[str | float],
) -> CurveTable:
    """Return a table of ``points``, named ``across``, and a column of values per system.

    ``values``: one system's rows -> a number per point, NaN where undefined.
    """
    chosen = systems_of(predictions)
    columns = [
        [
            None if np.isnan(value) else float(value)
            for value in values(rows_of(predictions, system))
        ]
        for system in chosen
    ]
    return CurveTable(columns=(across, *chosen), rows=tuple(zip(points, *columns, strict=True)))
