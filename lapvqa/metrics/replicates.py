"""Replicates of a system: heads on one encoder that differ only in the seed of their weights.

They show how much of a result is owed to the first weights. The head of the first seed bears the
system's name, the others are <system>@1, <system>@2, ... Predictions hold all of them. A system's
metrics are the means over its heads, in the sample and in every draw of patients, so that an
interval is of patients; the heads' standard deviation stands beside it. Curves and pictures show
the first head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lapvqa.errors import SchemaError
from lapvqa.metrics.bootstrap import Array, Measures

_MARK = "@"


def head_name(system: str, number: int) -> str:
    """Return what a system's head is called, ``number`` from 0."""
    return f"{system}{_MARK}{number}" if number else system


def heads_by_system(names: Sequence[str]) -> dict[str, list[str]]:
    """Return system -> its heads, that of the first seed first; systems by name."""
    heads: dict[str, list[str]] = {}
    for name in sorted(names):
        system, mark, number = name.rpartition(_MARK)
        is_repeat = bool(mark) and number.isdecimal() and system in names
        heads.setdefault(system if is_repeat else name, []).append(name)
    return {
        system: sorted(names_of, key=lambda name: (name != system, len(name), name))
        for system, names_of in sorted(heads.items())
    }


def first_heads(predictions: pa.Table) -> pa.Table:
    """Return the rows of each system's first head."""
    systems = heads_by_system(pc.unique(predictions["system"]).to_pylist())
    return predictions.filter(pc.is_in(predictions["system"], pa.array(systems, pa.string())))


def rows_of(predictions: pa.Table, name: str) -> pa.Table:
    """Return the rows of one head."""
    return predictions.filter(pc.equal(predictions["system"], name))


def measure_heads(
    measure: Callable[[pa.Table], Measures], predictions: pa.Table, names: Sequence[str]
) -> list[Measures]:
    """Return the measures of each head of ``names``.

    Raises SchemaError unless all heads predicted the same samples in one order.
    """
    heads = [measure(rows_of(predictions, name)) for name in names]
    require_same_samples(dict(zip(names, heads, strict=True)))
    return heads


def mean_over_heads(heads: Sequence[Measures]) -> Measures:
    """Return the measures of a system: the means over its heads."""
    first = heads[0]
    if len(heads) == 1:
        return first

    def mean(weights: Array) -> Array:
        values: Array = np.mean([head.statistic(weights) for head in heads], axis=0)
        return values

    return Measures(
        names=first.names,
        samples=first.samples,
        patients=first.patients,
        statistic=mean,
        undefined={name: why for head in heads for name, why in head.undefined.items()},
    )


def values_over_heads(heads: Sequence[Measures]) -> dict[str, dict[str, Any]]:
    """Return metric -> the values of the heads and their standard deviation (n - 1)."""
    ones = np.ones((1, len(heads[0].samples)))
    values = np.stack([np.ravel(head.statistic(ones)[0]) for head in heads])
    return {
        name: {
            "values": [float(value) if np.isfinite(value) else None for value in column],
            "sd": float(np.std(column, ddof=1)) if np.isfinite(column).all() else None,
        }
        for name, column in zip(heads[0].names, values.T, strict=True)
    }


def require_same_samples(measures: Mapping[str, Measures]) -> None:
    """Raise SchemaError unless all have the same samples in one order, as paired draws need."""
    first_name, first = next(iter(measures.items()))
    for name, other in measures.items():
        if (other.names, other.samples, other.patients) == (
            first.names, first.samples, first.patients,
        ):  # fmt: skip
            continue
        raise SchemaError(
            f"systems {first_name} ({len(first.samples)} samples) and {name} "
            f"({len(other.samples)} samples) were not predicted on the same samples in one order",
            hint="write one row per sample and system, in the same order for every system",
        )
