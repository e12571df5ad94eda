"""Questions about an image and the one before it: MIMIC-Diff-VQA."""

from __future__ import annotations

from lapvqa.datasets.diff_vqa import read_diff_vqa
from lapvqa.diffvqa.model import DiffVQAHead
from lapvqa.evaluation import answering
from lapvqa.evaluation.answering import QuestionTask
from lapvqa.evaluation.subject import Subject, pipeline
from lapvqa.job import Counts, Job
from lapvqa.params import EvaluateParams

EVALUATION = answering.evaluation("diffvqa", "bleu4")

ABSENT = (
    "no MIMIC-Diff-VQA here: set inventory.diff_vqa in params.yaml, or paths.diff_vqa in "
    "local.yaml, to the folder that holds mimic_pair_questions.csv"
)


def run(params: EvaluateParams, job: Job) -> Counts:
    """Judge the pipeline's encoder: write results/diffvqa; raises SourceError, SplitLeakError."""
    return evaluate(pipeline(job), params, job)


def evaluate(subject: Subject, params: EvaluateParams, job: Job) -> Counts:
    """Judge a subject's encoders; raises SourceError, SplitLeakError."""
    chosen = params.diffvqa
    task = QuestionTask(
        evaluation=EVALUATION,
        head=DiffVQAHead,
        folder="diff_vqa",
        absent=ABSENT,
        read=lambda folder, stored: read_diff_vqa(
            folder,
            stored,
            split=chosen.split,
            shared_patients=chosen.shared_patients,
            pretrained_patients=chosen.pretrained_patients,
            reversed_pairs=chosen.reversed_pairs,
        ),
        type_column="question_type",
        pairs=True,
        params=chosen,
    )
    return answering.run(task, subject, params.common, job)
