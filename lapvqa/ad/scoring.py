"""Score detected boxes: mAP@0.4 (VinDr-CXR), mAP@0.5 (VOC), COCO AP."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lapvqa.datasets.vindr_tables import CLASSES
from lapvqa.errors import SchemaError
from lapvqa.evaluation import prediction_rows
from lapvqa.evaluation.task import CurveTable
from lapvqa.metrics.bootstrap import Array, Measures
from lapvqa.metrics.boxes.coco import coco_panel
from lapvqa.metrics.boxes.voc import VINDR, FoundBoxes, Index, TrueBoxes, detection_panel
from lapvqa.metrics.panel import measures, side_by_side

PRIMARY = "mean_ap40"
CURVE_COLUMNS = ("class", *prediction_rows.FIRST)


def measure(predictions: pa.Table, *, labels: Sequence[str] = CLASSES) -> Measures:
    """Return the APs of one system's rows; images without boxes count.

    Raises SchemaError for a repeated image, a label not among ``labels`` and what
    ``metrics.detection.check_boxes`` refuses.
    """
    rows = prediction_rows.ordered(predictions)
    truth, found = read_boxes(rows, labels)
    panel = side_by_side(
        detection_panel(truth, found, num_images=rows.num_rows, labels=labels),
        coco_panel(truth, found, num_images=rows.num_rows, labels=labels),
    )
    return measures(panel, samples=rows["sample"].to_pylist(), patients=rows["patient"].to_pylist())


def curves(predictions: pa.Table, *, labels: Sequence[str] = CLASSES) -> CurveTable:
    """Return AP@0.4 of each class, a column per system."""

    def precisions(predicted: pa.Table) -> Array:
        rows = prediction_rows.ordered(predicted)
        boxes = read_boxes(rows, labels)
        panel = detection_panel(*boxes, num_images=rows.num_rows, labels=labels, rules=(VINDR,))
        return panel.statistic(np.ones((1, rows.num_rows)))[0, 1:]

    return prediction_rows.curves(predictions, precisions, across=CURVE_COLUMNS[0], points=labels)


def read_boxes(rows: pa.Table, labels: Sequence[str]) -> tuple[TrueBoxes, FoundBoxes]:
    """Return the boxes of all rows, images numbered in their order; SchemaError as ``measure``."""
    truth = TrueBoxes(*_columns(rows, "true_labels", "true_boxes", labels))
    image, label, boxes = _columns(rows, "found_labels", "found_boxes", labels)
    if _lengths(rows, "found_scores") != _lengths(rows, "found_boxes"):
        raise _fault("a score for every found box, found lists of other lengths")
    scores = pc.list_flatten(rows["found_scores"]).to_numpy()
    return truth, FoundBoxes(image, label, boxes, scores)


def _columns(
    rows: pa.Table, label_column: str, box_column: str, labels: Sequence[str]
) -> tuple[Index, Index, Array]:
    """Return image [m], label [m] and boxes [m, 4] of two columns of lists."""
    lengths = _lengths(rows, label_column)
    if lengths != _lengths(rows, box_column):
        raise _fault(f"a box for every label in {label_column}, found lists of other lengths")
    given = pc.list_flatten(rows[label_column])
    label = pc.index_in(given, pa.array(labels, pa.string()))
    if label.null_count:
        unknown = sorted(set(given.to_pylist()).difference(labels))
        raise _fault(f"{label_column} among {', '.join(labels)}, found {', '.join(unknown)}")
    corners = pc.list_flatten(pc.list_flatten(rows[box_column])).to_numpy()
    if len(corners) != 4 * len(given):
        raise _fault(f"four numbers for every box in {box_column}, found null")
    image = np.repeat(np.arange(rows.num_rows), lengths)
    return image, label.to_numpy().astype(np.int64), corners.reshape(-1, 4)


def _lengths(rows: pa.Table, column: str) -> list[int]:
    lengths: list[int] = pc.list_value_length(rows[column]).to_pylist()
    return lengths


def _fault(expected: str) -> SchemaError:
    return SchemaError(
        f"ad predictions.parquet: expected {expected}",
        hint="see schemas.DETECTION_PREDICTIONS for the columns; run the evaluation again",
    )
