"""Phrase grounding: the box that a phrase of a report speaks of, on MS-CXR."""

from __future__ import annotations

import pyarrow as pa

from lapvqa.evaluation import contract
from lapvqa.evaluation.task import CurveTable, EvaluationTask, InputFolder
from lapvqa.metrics.bootstrap import Measures
from lapvqa.metrics.boxes.phrase_grounding import Several
from lapvqa.pg import scoring
from lapvqa.schemas import GROUNDING_PREDICTIONS


def measure(predictions: pa.Table) -> Measures:
    """Score one system's rows; of several true boxes by the rule that their protocol names."""
    return scoring.measure(predictions, several=_rule(predictions))


def curves(predictions: pa.Table) -> CurveTable:
    """Return the curves of all systems, by the same rule."""
    return scoring.curves(predictions, several=_rule(predictions))


def _rule(predictions: pa.Table) -> Several:
    """Return the rule of the protocol in the table's metadata; union where it has none."""
    rule: Several = contract.protocol_of(predictions).get(scoring.RULE, "union")
    return rule


TASK = EvaluationTask(
    name="pg",
    judge="lapvqa.pg.judge:judge",
    folder=InputFolder(
        name="ms_cxr",
        data="MS-CXR",
        holds="MS_CXR_Local_Alignment_v1.1.0.csv or .json (or those of v1.0.0)",
        of_archive=True,
    ),
    schema=GROUNDING_PREDICTIONS,
    primary=scoring.PRIMARY,
    measure=measure,
    curves=curves,
    curve_columns=scoring.CURVE_COLUMNS,
    title="Grounding of phrases",
    about="Given a phrase of a report, a small transformer over the encoder's tokens draws the box "
    "it speaks of (MS-CXR). IoU is the shared area over the area of both boxes.",
    charted=("miou", "acc25", "acc50", "pointing"),
    examples="grounding",
)
