"""Linear probe on CheXpert-5: frontal images; the test is the official validation or test set."""

from __future__ import annotations

from lapvqa.config import Machine
from lapvqa.evaluation import contract, linear_probe
from lapvqa.evaluation.linear_probe import ProbeTask
from lapvqa.evaluation.subject import Subject, pipeline
from lapvqa.layout import Layout
from lapvqa.params import EvaluateParams
from lapvqa.probe import chexpert
from lapvqa.recorder import Recorder

EVALUATION = linear_probe.evaluation("probe_chexpert", chexpert.LABELS)

ABSENT = (
    "no CheXpert images here: set inventory.chexpert in params.yaml, or paths.chexpert in "
    "local.yaml, to the folder that holds train.csv and valid.csv"
)


def run(
    params: EvaluateParams, layout: Layout, machine: Machine, recorder: Recorder
) -> contract.Counts:
    """Judge the pipeline's encoder: write results/probe_chexpert; raises SourceError."""
    return evaluate(pipeline(layout), params, layout, machine, recorder)


def evaluate(
    subject: Subject, params: EvaluateParams, layout: Layout, machine: Machine, recorder: Recorder
) -> contract.Counts:
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
    return linear_probe.run(task, subject, params.common, layout, machine, recorder)
