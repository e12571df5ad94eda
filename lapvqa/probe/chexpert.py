"""Linear probe on CheXpert-5: frontal images; the test is the official validation or test set."""

from __future__ import annotations

from lapvqa.datasets import chexpert
from lapvqa.evaluation.subject import Subject, pipeline
from lapvqa.job import Counts, Job
from lapvqa.params import EvaluateParams
from lapvqa.probe.task import ProbeTask, evaluation, judge

EVALUATION = evaluation("probe_chexpert", chexpert.LABELS)

ABSENT = (
    "no CheXpert images here: set inventory.chexpert in params.yaml, or paths.chexpert in "
    "local.yaml, to the folder that holds train.csv and valid.csv"
)


def run(params: EvaluateParams, job: Job) -> Counts:
    """Judge the pipeline's encoder: write results/probe_chexpert; raises SourceError."""
    return evaluate(pipeline(job), params, job)


def evaluate(subject: Subject, params: EvaluateParams, job: Job) -> Counts:
    """Judge a subject's encoders; raises SourceError."""
    chosen = params.probe_chexpert
    task = ProbeTask(
        evaluation=EVALUATION,
        folder="chexpert",
        absent=ABSENT,
        read=lambda source: chexpert.read_chexpert(
            source.folder, uncertain=chosen.uncertain, test=chosen.test
        ),
        c_grid=chosen.c_grid,
        protocol={
            "views": "frontal",
            "uncertain": chosen.uncertain,
            "blank": "0",
            "test_set": chosen.test,
        },
    )
    return judge(task, subject, params.common, job)
