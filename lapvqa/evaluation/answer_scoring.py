"""Score answers: exact match and F1 by type of question, and the metrics of texts.

Short answers are judged by exact match (vqa), sentences about a difference by BLEU-4 (diffvqa);
both tasks report both.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lapvqa.evaluation import prediction_rows
from lapvqa.evaluation.task import CurveTable
from lapvqa.metrics.bootstrap import Measures
from lapvqa.metrics.panel import Panel, measures, side_by_side
from lapvqa.metrics.texts.meteor import meteor_panel
from lapvqa.metrics.texts.ngrams import text_panel
from lapvqa.metrics.texts.short_answers import answers_panel

CURVE_COLUMNS = ("type", *prediction_rows.FIRST)


def measure(predictions: pa.Table) -> Measures:
    """Return the metrics of one system's rows; raises SchemaError for a repeated sample."""
    rows = prediction_rows.ordered(predictions)
    texts = rows["reference"].to_pylist(), rows["hypothesis"].to_pylist()
    panel = side_by_side(_answers(rows), text_panel(*texts), meteor_panel(*texts))
    return measures(panel, samples=rows["sample"].to_pylist(), patients=rows["patient"].to_pylist())


def curves(predictions: pa.Table) -> CurveTable:
    """Return the exact match of each type of question, a column per system."""
    types = sorted(pc.unique(predictions["type"]).to_pylist())

    def matches(rows: pa.Table) -> list[float]:
        panel = _answers(rows)
        values = panel.statistic(np.ones((1, rows.num_rows)))[0]
        by_name = dict(zip(panel.names, values.tolist(), strict=True))
        return [by_name.get(f"exact_match/type:{kind}", np.nan) for kind in types]

    return prediction_rows.curves(predictions, matches, across=CURVE_COLUMNS[0], points=types)


def _answers(rows: pa.Table) -> Panel:
    return answers_panel(
        rows["reference"].to_pylist(),
        rows["hypothesis"].to_pylist(),
        types=rows["type"].to_pylist(),
    )
