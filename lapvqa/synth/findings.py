"""What can be wrong in a demo chest: a kind, a side, a zone, a grade."""

from __future__ import annotations

from dataclasses import dataclass

ATELECTASIS = "atelectasis"
CARDIOMEGALY = "cardiomegaly"
CONSOLIDATION = "consolidation"
EDEMA = "edema"
EFFUSION = "pleural effusion"
PNEUMOTHORAX = "pneumothorax"
NODULE = "nodule"
DEVICE = "support device"

KINDS = (
    ATELECTASIS,
    CARDIOMEGALY,
    CONSOLIDATION,
    EDEMA,
    EFFUSION,
    PNEUMOTHORAX,
    NODULE,
    DEVICE,
)
SIDES = ("right", "left")
ZONES = ("upper", "mid", "lower")
DEVICES = ("endotracheal tube", "central venous catheter", "pacemaker")


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
