"""Findings of a demo chest: kind, side, zone and grade; and their names in the label sets."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from lapvqa.schemas import CHEXPERT_LABELS

ATELECTASIS = "atelectasis"
CARDIOMEGALY = "cardiomegaly"
CONSOLIDATION = "consolidation"
EDEMA = "edema"
EFFUSION = "pleural effusion"
PNEUMOTHORAX = "pneumothorax"
NODULE = "nodule"
DEVICE = "support device"

SIDES = ("right", "left")
ZONES = ("upper", "mid", "lower")
DEVICES = ("endotracheal tube", "central venous catheter", "pacemaker")

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


@dataclass(frozen=True)
class Finding:
    """One finding of one study.

    ``grade`` in 0..1 sets its size, ``seed`` its irregular shape and exact place; both persist
    while the finding persists. ``uncertain`` changes the report's wording only, never the image.
    """

    kind: str
    grade: float
    seed: int
    side: str = ""
    zone: str = ""
    device: str = ""
    uncertain: bool = False

    @property
    def sign(self) -> int:
        """-1 for the patient's right (the film's left), 1 for the left."""
        return -1 if self.side == "right" else 1

    @property
    def severity(self) -> str:
        """The grade in words; volumes of pleural air and fluid have their own."""
        third = min(2, int(self.grade * 3))
        if self.kind in (EFFUSION, PNEUMOTHORAX):
            return ("small", "moderate", "large")[third]
        return ("mild", "moderate", "severe")[third]

    @property
    def millimetres(self) -> int:
        """Diameter of a nodule, 8 to 30 mm."""
        return round(8 + 22 * self.grade)


def is_normal(findings: Iterable[Finding]) -> bool:
    """Return whether nothing but devices was found: what CheXpert calls No Finding."""
    return all(finding.kind == DEVICE for finding in findings)


def chexpert_labels(
    findings: Iterable[Finding], negated: Collection[str]
) -> dict[str, float | None]:
    """Return the 14 CheXpert labels of a report: 1, 0 where negated, -1 where hedged, or None.

    ``negated`` are the kinds that the report rules out. As the CheXpert labeler does, a label
    without a mention stays blank and No Finding is never 0.
    """
    findings = tuple(findings)
    values: dict[str, float | None] = dict.fromkeys(CHEXPERT_LABELS)
    for kind in negated:
        values[CHEXPERT_OF[kind]] = 0.0
    for finding in sorted(findings, key=lambda each: not each.uncertain):  # a sure one outweighs
        values[CHEXPERT_OF[finding.kind]] = -1.0 if finding.uncertain else 1.0
    if is_normal(findings):
        values["No Finding"] = 1.0
    return values
