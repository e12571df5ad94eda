"""Linear probe on CheXpert-5."""

from __future__ import annotations

from lapvqa.datasets import chexpert
from lapvqa.evaluation.task import InputFolder
from lapvqa.params import ProbeChexpertParams
from lapvqa.probe.task import probe_task


def _chexpert_protocol(params: ProbeChexpertParams) -> dict[str, str]:
    return {
        "views": "frontal", "uncertain": params.uncertain, "blank": "0", "test_set": params.test,
    }  # fmt: skip


TASK = probe_task(
    chexpert.LABELS,
    name="probe_chexpert",
    folder=InputFolder(
        name="chexpert",
        data="CheXpert images",
        holds="train.csv and valid.csv",
    ),
    read=lambda source, params: chexpert.read_chexpert(
        source.folder, source.files, uncertain=params.uncertain, test=params.test
    ),
    protocol=_chexpert_protocol,
    title="Linear probe, CheXpert-5",
    about="A logistic regression per finding on the frozen encoder's features; area under the ROC "
    "curve on patients that neither the encoder nor the probe was trained on. Five findings.",
)
