"""View of an image: AP, PA or lateral, as the training images say that lie nearest."""

from __future__ import annotations

from lapvqa.evaluation import answer_scoring
from lapvqa.evaluation.task import EvaluationTask
from lapvqa.schemas import ANSWER_PREDICTIONS

TASK = EvaluationTask(
    name="view",
    judge="lapvqa.view.judge:judge",
    schema=ANSWER_PREDICTIONS,
    primary="exact_match",
    measure=answer_scoring.measure,
    curves=answer_scoring.curves,
    curve_columns=answer_scoring.CURVE_COLUMNS,
    title="View of the image",
    about="The view that most of the nearest training images have, by the mean of the encoder's "
    "tokens. Right is the view that the file's header names.",
    charted=("exact_match",),
    examples="answers",
)
