"""Questions about one image: MIMIC-Ext-MIMIC-CXR-VQA."""

from __future__ import annotations

from lapvqa.evaluation import answer_scoring
from lapvqa.evaluation.task import EvaluationTask, InputFolder
from lapvqa.schemas import ANSWER_PREDICTIONS

TASK = EvaluationTask(
    name="vqa",
    judge="lapvqa.vqa.judge:judge",
    folder=InputFolder(
        name="ext_vqa",
        data="MIMIC-Ext-MIMIC-CXR-VQA",
        holds="train.json, valid.json and test.json",
        of_archive=True,
    ),
    schema=ANSWER_PREDICTIONS,
    primary="exact_match",
    measure=answer_scoring.measure,
    curves=answer_scoring.curves,
    curve_columns=answer_scoring.CURVE_COLUMNS,
    title="Questions about an image",
    about="A small decoder over the encoder's tokens answers the questions of "
    "MIMIC-Ext-MIMIC-CXR-VQA. Right is an answer that equals the reference after case, "
    "punctuation and articles are taken away. The words are the data set's: its devices are "
    "pacemakers and the like, while tubes and catheters are tubes/lines, so that a film with a "
    "catheter may have no device.",
    charted=("exact_match",),
    examples="answers",
)
