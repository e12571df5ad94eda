"""Findings in the words of the public datasets' label sets."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from lapvqa.schemas import CHEXPERT_LABELS
from lapvqa.synth.findings import (
    ATELECTASIS,
    CARDIOMEGALY,
    CONSOLIDATION,
    DEVICE,
    EDEMA,
    EFFUSION,
    NODULE,
    PNEUMOTHORAX,
    Finding,
)

CHEXPERT_OF = {
    ATELECTASIS: "Atelectasis",
    CARDIOMEGALY: "Cardiomegaly",
    CONSOLIDATION: "Consolidation",
    EDEMA: "Edema",
    EFFUSION: "Pleural Effusion",
    PNEUMOTHORAX: "Pneumothorax",
    NODULE: "Lung Lesion",
    DEVICE: "Support Devices",
}

CHEXPERT_ORDER = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
"""The order of CheXpert's own files; MIMIC-CXR-JPG orders the same labels by name."""

NIH_OF = {
    ATELECTASIS: "Atelectasis",
    CARDIOMEGALY: "Cardiomegaly",
    CONSOLIDATION: "Consolidation",
    EDEMA: "Edema",
    EFFUSION: "Effusion",
    PNEUMOTHORAX: "Pneumothorax",
    NODULE: "Nodule",
}

VINDR_OF = {
    ATELECTASIS: "Atelectasis",
    CARDIOMEGALY: "Cardiomegaly",
    CONSOLIDATION: "Consolidation",
    EDEMA: "Edema",
    EFFUSION: "Pleural effusion",
    PNEUMOTHORAX: "Pneumothorax",
    NODULE: "Nodule/Mass",
}


def is_normal(findings: Iterable[Finding]) -> bool:
    """Return whether nothing but devices was found: what CheXpert calls No Finding."""
    return all(finding.kind == DEVICE for finding in findings)


def chexpert(findings: Iterable[Finding], negated: Collection[str]) -> dict[str, float | None]:
    """Return the 14 CheXpert labels of a report: 1, 0 where negated, -1 where hedged, or None.

    ``negated`` are the kinds that the report rules out. As the CheXpert labeler does, a label
    without a mention stays blank and No Finding is never 0.
    """
    found = tuple(findings)
    values: dict[str, float | None] = dict.fromkeys(CHEXPERT_LABELS)
    for kind in negated:
        values[CHEXPERT_OF[kind]] = 0.0
    for finding in sorted(found, key=lambda one: not one.uncertain):  # a sure one outweighs
        values[CHEXPERT_OF[finding.kind]] = -1.0 if finding.uncertain else 1.0
    if is_normal(found):
        values["No Finding"] = 1.0
    return values
