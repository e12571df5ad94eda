"""Linear probes on the mean of the encoder's tokens: CheXpert-5 and NIH ChestX-ray14."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from lapvqa.datasets import chexpert, nih14
from lapvqa.datasets.labelled import ProbeDataset
from lapvqa.evaluation.task import EvaluationTask, InputFolder
from lapvqa.params import ProbeChexpertParams
from lapvqa.probe import scoring
from lapvqa.schemas import PROBE_PREDICTIONS


@dataclass(frozen=True, kw_only=True)
class ProbeTask(EvaluationTask):
    """A probe on one data set.

    ``read``: the listed files (``ImageFolder``) and the task's parameters -> images and labels;
    ``protocol``: the parameters -> how the labels are read.
    """

    read: Callable[[Any, Any], ProbeDataset]
    protocol: Callable[[Any], Mapping[str, str]]


def _probe(labels: tuple[str, ...], **fields: Any) -> ProbeTask:
    """Return a probe on ``labels``, scored by the AUC of each and their mean."""
    return ProbeTask(
        judge="lapvqa.probe.judge:judge",
        schema=PROBE_PREDICTIONS,
        primary="mean_auc",
        measure=partial(scoring.measure, labels=labels),
        curves=partial(scoring.curves, labels=labels),
        curve_columns=scoring.CURVE_COLUMNS,
        charted=("auc",),
        examples="probe",
        **fields,
    )


def _chexpert_protocol(params: ProbeChexpertParams) -> dict[str, str]:
    return {
        "views": "frontal", "uncertain": params.uncertain, "blank": "0", "test_set": params.test,
    }  # fmt: skip


CHEXPERT = _probe(
    chexpert.LABELS,
    name="probe_chexpert",
    folder=InputFolder(
        name="chexpert",
        data="CheXpert images",
        holds="train.csv and valid.csv",
    ),
    read=lambda source, params: chexpert.read_chexpert(
        source.folder, uncertain=params.uncertain, test=params.test
    ),
    protocol=_chexpert_protocol,
    title="Linear probe, CheXpert-5",
    about="A logistic regression per finding on the frozen encoder's features; area under the ROC "
    "curve on patients that neither the encoder nor the probe was trained on. Five findings.",
)

NIH14 = _probe(
    nih14.LABELS,
    name="probe_nih14",
    folder=InputFolder(
        name="nih14",
        data="NIH ChestX-ray14 images",
        holds="Data_Entry_2017_v2020.csv",
    ),
    read=lambda source, params: nih14.read_nih14(source.folder, source.files),
    protocol=lambda params: {"views": "PA and AP", "finding_not_named": "0"},
    title="Linear probe, NIH ChestX-ray14",
    about="The same probe on the fourteen findings of NIH ChestX-ray14, on its official test list.",
)

TASKS = (CHEXPERT, NIH14)
