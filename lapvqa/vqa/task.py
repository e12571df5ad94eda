"""Questions about one image: MIMIC-Ext-MIMIC-CXR-VQA."""

from __future__ import annotations

from lapvqa.datasets.ext_vqa import read_ext_vqa
from lapvqa.evaluation import answering
from lapvqa.evaluation.answering import QuestionTask
from lapvqa.evaluation.subject import Subject, pipeline
from lapvqa.job import Counts, Job
from lapvqa.params import EvaluateParams
from lapvqa.vqa.model import VQAHead

EVALUATION = answering.evaluation("vqa", "exact_match")

ABSENT = (
    "no MIMIC-Ext-MIMIC-CXR-VQA here: set inventory.ext_vqa in params.yaml, or paths.ext_vqa in "
    "local.yaml, to the folder that holds train.json, valid.json and test.json"
)


def run(params: EvaluateParams, job: Job) -> Counts:
    """Judge the pipeline's encoder: write results/vqa; raises SourceError, SplitLeakError."""
    return evaluate(pipeline(job), params, job)


def evaluate(subject: Subject, params: EvaluateParams, job: Job) -> Counts:
    """Judge a subject's encoders; raises SourceError, SplitLeakError."""
    chosen = params.vqa
    task = QuestionTask(
        evaluation=EVALUATION,
        head=VQAHead,
        folder="ext_vqa",
        absent=ABSENT,
        read=lambda folder, stored: read_ext_vqa(
            folder,
            stored,
            empty_answers=chosen.empty_answers,
            split=chosen.split,
            shared_patients=chosen.shared_patients,
            pretrained_patients=chosen.pretrained_patients,
        ),
        type_column="content_type",
        pairs=False,
        params=chosen,
    )
    return answering.run(task, subject, params.common, job)
