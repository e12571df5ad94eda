"""Score one box per phrase: mIoU, Acc@0.25, Acc@0.5 and the pointing game.

Which box a phrase with several true boxes is compared with (``several``) is no part of the
predictions: the evaluation binds it, and names it in the protocol.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from lapvqa.evaluation import prediction_rows
from lapvqa.evaluation.task import CurveTable
from lapvqa.metrics.bootstrap import Array, Measures
from lapvqa.metrics.boxes.overlap import as_boxes
from lapvqa.metrics.boxes.phrase_grounding import Several, grounding_panel, phrase_ious
from lapvqa.metrics.panel import measures

PRIMARY = "miou"
RULE = "scored_several_boxes"
"""The fact of the protocol that names the rule for several true boxes."""

CURVE_COLUMNS = ("iou", *prediction_rows.FIRST)

_THRESHOLDS = np.linspace(0, 1, 101)
_NONE = (np.nan,) * 4


def measure(predictions: pa.Table, *, several: Several) -> Measures:
    """Return the metrics of one system's rows.

    Raises SchemaError for a repeated phrase and what ``metrics.grounding`` refuses.
    """
    rows = prediction_rows.ordered(predictions)
    panel = grounding_panel(*read_boxes(rows), several=several)
    return measures(panel, samples=rows["sample"].to_pylist(), patients=rows["patient"].to_pylist())


def curves(predictions: pa.Table, *, several: Several) -> CurveTable:
    """Return the share of phrases with at least each IoU from 0 to 1, a column per system."""

    def shares(rows: pa.Table) -> Array:
        overlaps = phrase_ious(*read_boxes(rows), several=several)
        share: Array = (overlaps[:, None] >= _THRESHOLDS).mean(axis=0)
        return share

    return prediction_rows.curves(
        predictions, shares, across=CURVE_COLUMNS[0], points=_THRESHOLDS.tolist()
    )


def read_boxes(rows: pa.Table) -> tuple[list[Array], Array]:
    """Return each phrase's true boxes, [m, 4], and the found ones [n, 4], NaN where none is."""
    truth = [as_boxes(boxes) for boxes in rows["true_boxes"].to_pylist()]
    return truth, as_boxes([box or _NONE for box in rows["found_box"].to_pylist()])
