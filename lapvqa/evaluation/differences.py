"""Two systems on the same samples: each metric's difference, its interval and p.

The bootstrap's interval and p come from the same draws of patients for both. The AUROC of a class
has DeLong's p too, its variance summed by patient: it needs no draws, but many patients. No p is
corrected for the number of metrics compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lapvqa.metrics.bootstrap import Array, Measures
from lapvqa.metrics.paired import delong_test, from_draws
from lapvqa.schemas import PROBE_PREDICTIONS

P_VALUE = (
    "two-sided: twice the share of draws on the other side of 0 (one added to both counts), at "
    "least 2 ** (1 - patients)"
)
DELONG = "two-sided, DeLong 1988, variance summed by patient (Obuchowski 1997)"

_AUC = "auc/"

Numbers = dict[str, float | None]


def differences(
    measures: Measures,
    values: tuple[Array, Array],
    rows: tuple[pa.Table, pa.Table],
    *,
    confidence: float,
) -> dict[str, Numbers]:
    """Return metric -> value, low, high, p_value, of first - second; auc/<label> has delong_p.

    ``measures``: either system's (names and patients are the same). ``values``: what
    ``draw_values`` gave for each, [1 + draws, k]; ``rows``: the predictions of each. None where
    undefined.
    """
    drawn = from_draws(
        measures.names, *values, patients=len(set(measures.patients)), confidence=confidence
    )
    by_metric: dict[str, Numbers] = {name: asdict(one) for name, one in drawn.items()}
    if rows[0].schema.names == PROBE_PREDICTIONS.names:
        for name, p_value in _delong(measures.names, rows, confidence=confidence).items():
            by_metric[name]["delong_p"] = p_value
    return by_metric


def _delong(
    names: tuple[str, ...], rows: tuple[pa.Table, pa.Table], *, confidence: float
) -> Mapping[str, float | None]:
    """Return auc/<label> -> DeLong's p."""
    first, second = (part.sort_by("sample") for part in rows)
    return {
        name: _delong_p(
            _of_label(first, name.removeprefix(_AUC)),
            _of_label(second, name.removeprefix(_AUC)),
            confidence=confidence,
        )
        for name in names
        if name.startswith(_AUC)
    }


def _of_label(rows: pa.Table, label: str) -> pa.Table:
    chosen = pc.and_(pc.equal(rows["label"], label), pc.is_valid(rows["target"]))
    return rows.filter(chosen)


def _delong_p(first: pa.Table, second: pa.Table, *, confidence: float) -> float | None:
    if not first.num_rows or first["sample"] != second["sample"]:
        return None  # nothing known of this label, or only one system predicts it
    test = delong_test(
        first["target"].to_numpy(),
        np.asarray(first["score"]),
        np.asarray(second["score"]),
        first["patient"].to_pylist(),
        confidence=confidence,
    )
    return None if test is None else test.p_value
