"""Linear probe on NIH ChestX-ray14."""

from __future__ import annotations

from lapvqa.datasets import nih14
from lapvqa.evaluation.task import InputFolder
from lapvqa.probe.task import probe_task

TASK = probe_task(
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
