"""The patient and how they stand before the detector: numbers in centimetres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lapvqa.synth.findings import ATELECTASIS, CARDIOMEGALY, Finding
from lapvqa.synth.layers import Frame


@dataclass(frozen=True)
class Anatomy:
    """One patient's build; constant over their studies."""

    height: float
    """Lung apex to the right dome at full inspiration."""
    width: float
    """Half the widest inner width of the thorax."""
    depth: float
    """Front to back, soft tissue included."""
    wall: float
    """Soft tissue outside the ribs."""
    taper: float
    """Below 1: narrow apices."""
    heart_ratio: float
    """Cardiothoracic ratio without disease."""
    heart_tilt: float
    """0 lies flat, 1 hangs upright."""
    aorta: float
    """Radius of the aortic knob."""
    rib_gap: float
    """Distance between ribs at the spine."""
    rib_drop: float
    """How far a rib falls from spine to sternum."""
    rib_width: float
    bone: float
    """Mineral content, about 1."""
    breast: float
    """Thickness of the breasts; 0 for none."""
    vessels: float
    """Prominence of the lung vessels, about 1."""
    scoliosis: float
    """Sideways bend of the spine."""
    seed: int
    """Of the irregular parts: vessels, texture."""
    female: bool
    age: int


def sample_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw a patient."""
    female = bool(rng.random() < 0.48)
    obesity = float(np.clip(rng.gamma(1.5, 0.6), 0.0, 2.6))
    size = 0.94 if female else 1.03
    return Anatomy(
        height=size * rng.normal(22.0, 1.0),
        width=size * float(np.clip(rng.normal(13.6, 0.7), 12.0, 15.4)),
        depth=float(np.clip(rng.normal(20.5, 1.6) + 2.4 * obesity, 17.0, 29.0)),
        wall=1.6 + 1.1 * obesity + rng.uniform(0.0, 0.8),
        taper=rng.uniform(0.92, 1.06),
        heart_ratio=rng.uniform(0.385, 0.455),
        heart_tilt=rng.uniform(0.0, 1.0),
        aorta=rng.uniform(1.25, 1.9),
        rib_gap=rng.uniform(2.15, 2.5),
        rib_drop=rng.uniform(6.0, 9.0),
        rib_width=rng.uniform(0.85, 1.2),
        bone=rng.uniform(0.5, 1.5),
        breast=rng.uniform(1.0, 5.0) if female and rng.random() < 0.8 else 0.0,
        vessels=float(np.exp(rng.uniform(np.log(0.45), np.log(1.7)))),
        scoliosis=rng.normal(0.0, 0.35),
        seed=int(rng.integers(2**31)),
        female=female,
        age=int(np.clip(rng.normal(61, 16), 19, 90)),
    )


@dataclass(frozen=True)
class Pose:
    """How one exposure was taken; drawn anew for every study."""

    view: str
    """PA, AP or LATERAL."""
    inspiration: float
    """1 is a full breath."""
    rotation: float
    """Turn about the long axis, -1..1: shifts the mediastinum to one side."""
    lift: float
    """How high the shoulders are drawn up, -1..1."""
    density: float
    """Of aerated lung, about 1: breath and perfusion change it, without disease."""


def sample_pose(rng: np.random.Generator, view: str) -> Pose:
    """Draw the posture for a view; a portable (AP) film has a shallower breath, more rotation."""
    portable = view == "AP"
    return Pose(
        view=view,
        inspiration=rng.uniform(0.91, 0.98) if portable else rng.uniform(0.95, 1.02),
        rotation=rng.normal(0.0, 0.3 if portable else 0.15),
        lift=rng.uniform(-1.0, 1.0),
        density=float(np.exp(rng.uniform(np.log(0.55), np.log(2.8)))),
    )


def sample_frame(
    rng: np.random.Generator, anatomy: Anatomy, pose: Pose, *, size: int, aspect: float
) -> Frame:
    """Draw field of view and centring; the film's longer side has ``size`` pixels."""
    lung = anatomy.height * pose.inspiration
    half = anatomy.width + anatomy.wall
    if pose.view == "LATERAL":
        half = 0.5 * anatomy.depth + 2.5
    # The technologist opens the collimator to the chest: the longer side spans skin to skin, or
    # neck to upper abdomen, whichever is more.
    span = max(2.0 * half, lung + 8.0) * rng.uniform(1.0, 1.07)
    cols, rows = round(size * min(1.0, aspect)), round(size * min(1.0, 1 / aspect))
    return Frame(
        rows=rows,
        cols=cols,
        scale=size / span,
        tilt=rng.normal(0.0, 0.02),
        centre=(
            rng.normal(0.0, 0.35),
            0.5 * lung + 1.2 + rng.normal(0.0, 0.35),
        ),
    )


@dataclass(frozen=True)
class Shape:
    """The organs' outlines of one exposure: anatomy, posture and the findings that move them."""

    anatomy: Anatomy
    pose: Pose
    height: float
    """Apex to the right dome without disease."""
    dome_right: float
    dome_left: float
    heart_right: float
    """Reach of the heart to the right of the midline."""
    heart_left: float
    shift: float
    """Of mediastinum and heart by rotation; positive to the patient's left."""

    def dome(self, side: str) -> float:
        """Return y of the top of one hemidiaphragm."""
        return self.dome_right if side == "right" else self.dome_left


def shape_of(anatomy: Anatomy, pose: Pose, findings: Sequence[Finding]) -> Shape:
    """Return the outlines for one exposure; cardiomegaly and volume loss move them."""
    height = anatomy.height * pose.inspiration
    domes = {"right": height, "left": height + 1.3}
    ratio = anatomy.heart_ratio + (0.02 if pose.view == "AP" else 0.0)
    for finding in findings:
        if finding.kind == CARDIOMEGALY:
            ratio = 0.59 + 0.12 * finding.grade
        if finding.kind == ATELECTASIS:
            domes[finding.side] -= 2.8 + 1.6 * finding.grade
    heart = 2 * anatomy.width * ratio
    return Shape(
        anatomy=anatomy,
        pose=pose,
        height=height,
        dome_right=domes["right"],
        dome_left=domes["left"],
        heart_right=0.33 * heart,
        heart_left=0.67 * heart,
        shift=0.9 * pose.rotation,
    )
