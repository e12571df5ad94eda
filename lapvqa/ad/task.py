"""Abnormality detection: boxes of 14 findings in VinDr-CXR, by a small DETR over the tokens."""

from __future__ import annotations

from lapvqa.ad import scoring
from lapvqa.evaluation.task import EvaluationTask, InputFolder
from lapvqa.schemas import DETECTION_PREDICTIONS

TASK = EvaluationTask(
    name="ad",
    judge="lapvqa.ad.judge:judge",
    folder=InputFolder(
        name="vindr",
        data="VinDr-CXR images",
        holds="train/, test/ and annotations/ (Kaggle's: train/ and train.csv)",
    ),
    schema=DETECTION_PREDICTIONS,
    primary=scoring.PRIMARY,
    measure=scoring.measure,
    curves=scoring.curves,
    curve_columns=scoring.CURVE_COLUMNS,
    title="Detection of findings",
    about="A small transformer over the encoder's tokens draws boxes around fourteen findings of "
    "VinDr-CXR. A box is right if it overlaps one of its finding by more than 0.4 (IoU); "
    "images without any finding count.",
    charted=("ap40",),
    examples="detection",
)
