"""What the beam meets: thickness maps in centimetres, and their line integral.

Attenuation coefficients are those of about 70 keV, in 1/cm: soft tissue 0.20, aerated lung a
quarter of it, cortical bone 0.55 (0.35 more than the tissue it replaces).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from lapvqa.synth.findings import SIDES
from lapvqa.synth.geometry import Frame, Map

MU_SOFT = 0.20
MU_LUNG = 0.055
MU_BONE = 0.35


@dataclass
class Layers:
    """Thickness along the beam of every material, cm, float32 (rows, cols)."""

    frame: Frame
    body: Map
    """Outer thickness of the body."""
    lung: dict[str, Map]
    """Aerated lung of each side; fluid and consolidation take from it."""
    field: dict[str, Map]
    """0..1: where each lung lies in projection, findings or not."""
    vessel: Map
    """Vessels and interstitium inside the lungs, cm of soft tissue in place of lung."""
    bone: Map
    air: Map
    """Air outside the lungs: trachea, stomach."""
    metal: Map
    """Attenuation (not cm) of devices and markers."""
    density: float = 1.0
    """Of aerated lung, relative to ``MU_LUNG``."""
    soft: Map = dataclasses.field(init=False)
    """Soft tissue in front of or behind the body outline: breasts."""
    free: Map = dataclasses.field(init=False)
    """Air in the pleural space."""

    def __post_init__(self) -> None:
        self.soft = np.zeros_like(self.body)
        self.free = np.zeros_like(self.body)

    def attenuation(self) -> Map:
        """Return the line integral of attenuation along the beam, float32 (rows, cols)."""
        lung = self.lung[SIDES[0]] + self.lung[SIDES[1]]
        tissue = self.body + self.soft - lung - self.free - self.air
        np.maximum(tissue, 0.0, out=tissue)
        return np.asarray(
            MU_SOFT * tissue
            + np.float32(MU_LUNG * self.density) * lung
            + (MU_SOFT - MU_LUNG) * self.vessel
            + MU_BONE * self.bone
            + self.metal,
            np.float32,
        )
