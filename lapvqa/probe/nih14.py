"""Linear probe on NIH ChestX-ray14: fourteen findings, official test list."""

from __future__ import annotations

from lapvqa.datasets import nih14
from lapvqa.evaluation.subject import Subject, pipeline
from lapvqa.job import Counts, Job
from lapvqa.params import EvaluateParams
from lapvqa.probe.task import ProbeTask, evaluation, judge

EVALUATION = evaluation("probe_nih14", nih14.LABELS)

ABSENT = (
    "no NIH ChestX-ray14 images here: set inventory.nih14 in params.yaml, or paths.nih14 in "
    "local.yaml, to the folder that holds Data_Entry_2017_v2020.csv"
)


def run(params: EvaluateParams, job: Job) -> Counts:
    """Judge the pipeline's encoder: write results/probe_nih14; raises SourceError."""
    return evaluate(pipeline(job), params, job)


def evaluate(subject: Subject, params: EvaluateParams, job: Job) -> Counts:
    """Judge a subject's encoders; raises SourceError."""
    task = ProbeTask(
        evaluation=EVALUATION,
        folder="nih14",
        absent=ABSENT,
        read=lambda source: nih14.read_nih14(source.folder, source.files),
        c_grid=params.probe_nih14.c_grid,
        protocol={"views": "PA and AP", "finding_not_named": "0"},
    )
    return judge(task, subject, params.common, job)
