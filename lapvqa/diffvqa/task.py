"""Questions about an image and the one before it: MIMIC-Diff-VQA."""

from __future__ import annotations

from lapvqa.evaluation import answer_scoring
from lapvqa.evaluation.task import EvaluationTask, InputFolder
from lapvqa.schemas import ANSWER_PREDICTIONS

TASK = EvaluationTask(
    name="diffvqa",
    judge="lapvqa.diffvqa.judge:judge",
    folder=InputFolder(
        name="diff_vqa",
        data="MIMIC-Diff-VQA",
        holds="mimic_pair_questions.csv",
        of_archive=True,
    ),
    schema=ANSWER_PREDICTIONS,
    primary="bleu4",
    measure=answer_scoring.measure,
    curves=answer_scoring.curves,
    curve_columns=answer_scoring.CURVE_COLUMNS,
    title="Questions about two images",
    about="The same, of MIMIC-Diff-VQA: about an image and the one before it. Many answers are "
    "sentences, so BLEU-4 counts which words they share with the reference.",
    charted=("bleu1", "bleu2", "bleu3", "bleu4", "rougeL", "exact_match"),
    examples="answers",
)
