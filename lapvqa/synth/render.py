"""One exposure, from its description to the picture and the findings' boxes."""

from __future__ import annotations

from dataclasses import dataclass

from lapvqa.synth.anatomy import sample_frame, sample_pose, shape_of
from lapvqa.synth.film import Picture, develop, expose, sample_technique
from lapvqa.synth.frontal import frontal_layers
from lapvqa.synth.geometry import Box, Frame
from lapvqa.synth.history import Exposure, Findings, stream
from lapvqa.synth.lateral import lateral_layers
from lapvqa.synth.layers import Layers
from lapvqa.synth.pathology import draw


@dataclass(frozen=True)
class Radiograph:
    """A finished image; ``boxes`` are parallel to the findings drawn, native pixels (xyxy)."""

    picture: Picture
    frame: Frame
    findings: Findings
    boxes: tuple[tuple[Box, ...], ...]


def chest(exposure: Exposure) -> tuple[Layers, tuple[tuple[Box, ...], ...]]:
    """Return what the beam meets, and the boxes of every finding (none on lateral views)."""
    rng = stream(*exposure.key)
    pose = sample_pose(rng, exposure.view)
    frame = sample_frame(rng, exposure.anatomy, pose, size=exposure.size, aspect=exposure.aspect)
    shape = shape_of(exposure.anatomy, pose, exposure.findings)
    if exposure.view == "LATERAL":
        return lateral_layers(shape, frame, exposure.findings), ((),) * len(exposure.findings)
    layers = frontal_layers(shape, frame)
    boxes = tuple(tuple(draw(layers, shape, finding)) for finding in exposure.findings)
    return layers, boxes


def render(exposure: Exposure) -> Radiograph:
    """Take the picture; equal exposures give equal pixels."""
    layers, boxes = chest(exposure)
    rng = stream(*exposure.key, 1)
    technique = sample_technique(rng)
    image = expose(layers.attenuation(), layers.frame, technique, rng)
    picture = develop(image, layers.frame, technique)
    return Radiograph(picture, layers.frame, exposure.findings, boxes)
