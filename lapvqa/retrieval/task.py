"""Retrieval: which report belongs to a film, and which film to a report."""

from __future__ import annotations

from lapvqa.evaluation.task import EvaluationTask
from lapvqa.retrieval import scoring
from lapvqa.schemas import RETRIEVAL_PREDICTIONS

TASK = EvaluationTask(
    name="retrieval",
    judge="lapvqa.retrieval.judge:judge",
    schema=RETRIEVAL_PREDICTIONS,
    primary="mean_mrr",
    measure=scoring.measure,
    curves=scoring.curves,
    curve_columns=scoring.CURVE_COLUMNS,
    title="Film and report retrieval",
    about="The words of a report are predicted from the frozen encoder's features of its film, by "
    "one linear map; then each test film looks for its report among all test reports, and each "
    "report for its film. A report of equal words is right too.",
    charted=("mrr", "recall1", "recall5", "recall10"),
    examples="none",
)
