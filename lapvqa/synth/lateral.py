"""The lateral chest: simpler than the frontal one, with the same findings in it.

The patient faces the film's left; x grows to the back. Both lungs lie over one another.
"""

from __future__ import annotations

import numpy as np

from lapvqa.synth.anatomy import Shape
from lapvqa.synth.findings import (
    ATELECTASIS,
    CONSOLIDATION,
    DEVICE,
    EDEMA,
    EFFUSION,
    NODULE,
    PNEUMOTHORAX,
    Finding,
)
from lapvqa.synth.geometry import Frame, Map, Points, rounded, smooth, step
from lapvqa.synth.history import Findings
from lapvqa.synth.layers import Layers

_ZONE_Y = {"upper": 0.28, "mid": 0.50, "lower": 0.74}


def _half(shape: Shape) -> float:
    """Return half the inner depth of the thorax."""
    return 0.5 * shape.anatomy.depth - 1.6


def _thorax(shape: Shape) -> Points:
    half, height = _half(shape), shape.height
    return smooth(
        [
            (-0.05 * half, 0.03 * height), (-0.55 * half, 0.16 * height),
            (-0.88 * half, 0.40 * height), (-1.0 * half, 0.70 * height),
            (-0.98 * half, height + 9), (0.98 * half, height + 9),
            (1.06 * half, 0.80 * height), (1.04 * half, 0.50 * height),
            (0.85 * half, 0.20 * height), (0.45 * half, 0.02 * height),
        ]
    )  # fmt: skip


def _body(shape: Shape) -> Points:
    half, height, fat = _half(shape), shape.height, 0.5 * shape.anatomy.wall
    front = half + 2.2 + fat + 0.6 * shape.anatomy.breast
    back = half + 3.2 + fat
    return smooth(
        [
            (-0.35 * half, -14), (-0.45 * half, -2.0), (-0.9 * front, 0.16 * height),
            (-front, 0.45 * height), (-front - 0.4, 0.75 * height), (-front, height + 14),
            (back, height + 14), (back + 0.4, 0.7 * height), (back, 0.35 * height),
            (0.95 * back, 0.1 * height), (0.6 * half, -3.0), (0.5 * half, -14),
        ]
    )  # fmt: skip


def _dome(shape: Shape, frame: Frame, side: str) -> Map:
    """Return y of one hemidiaphragm: highest in front of the middle, deep behind."""
    x = frame.grid[0] / np.float32(_half(shape))
    behind = np.clip((x + 0.25) / 1.3, 0.0, 0.999)
    before = np.clip((-0.25 - x) / 0.9, 0.0, 1.0)
    fall = 6.2 * (1 - np.sqrt(1 - behind**2)) + 2.2 * before**2
    return np.asarray(shape.dome(side) + fall, np.float32)


def _heart(shape: Shape, frame: Frame) -> Map:
    height, size = shape.height, (shape.heart_left + shape.heart_right) / 12.0
    turn = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    oval = np.column_stack([np.cos(turn), np.sin(turn)]) * [4.6 * size, 5.8 * size]
    oval = oval @ np.array([[0.87, 0.5], [-0.5, 0.87]])
    centre = (-0.42 * _half(shape) + 1.6 * (size - 1.0), 0.79 * height)
    arch = [(-1.2, 0.52 * height), (-0.6, 0.32 * height), (1.8, 0.27 * height), (4.0, 0.36 * height),
            (4.6, 0.7 * height), (4.6, height + 4)]  # fmt: skip
    return np.asarray(
        8.5 * size * rounded(frame.inset(oval + centre, 4.0))
        + 1.8 * frame.lines([smooth(arch, closed=False)], 2.6, blur=0.3),
        np.float32,
    )


def _bones(shape: Shape, frame: Frame) -> Map:
    """Return vertebrae behind, sternum in front, ribs across, shoulder blades."""
    half, height = _half(shape), shape.height
    bodies = []
    for index in range(-3, 13):
        y = index * 0.105 * height
        x = half * (0.66 + 0.26 * np.sin(np.clip((y + 4) / (height + 8), 0, 1) * np.pi))
        tall = 0.042 * height
        bodies.append(
            np.array(
                [(x, y - tall), (x, y + tall), (x + 2.9, y + tall + 0.2), (x + 2.9, y - tall + 0.2)]
            )
        )
    sternum = smooth(
        [
            (-0.45 * half, 0.10 * height),
            (-0.85 * half, 0.33 * height),
            (-1.03 * half, 0.66 * height),
        ],
        closed=False,
    )
    ribs = [
        smooth(
            [
                (1.04 * half, y),
                (0.3 * half, y + 1.2),
                (-0.5 * half, y + 5.0),
                (-0.85 * half, y + 6.0),
            ],
            closed=False,
        )
        for y in np.arange(0.02, 0.8, 0.1) * height
    ]
    blade = smooth(
        [(0.75 * half, 0.02 * height), (1.05 * half, 0.3 * height), (0.9 * half, 0.3 * height)]
    )
    bone = 1.1 * frame.fill(*bodies, blur=0.1) + 0.7 * frame.lines([sternum], 1.1, blur=0.06)
    bone += 0.32 * (frame.lines(ribs, 1.0) - 0.5 * frame.lines(ribs, 0.7))
    bone += 0.5 * frame.fill(blade, blur=0.08)
    return np.asarray(bone * shape.anatomy.bone, np.float32)


def _healthy(shape: Shape, frame: Frame) -> Layers:
    width = 2 * shape.anatomy.width
    y = frame.grid[1]
    slab = (0.8 * width + 6.0 * step((3.0 - y) / 6.0)) * rounded(frame.inset(_body(shape), 6.5))
    inside = rounded(frame.inset(_thorax(shape), 4.0))
    heart = 0.5 * _heart(shape, frame)
    lung, field = {}, {}
    for side in ("right", "left"):
        cut = rounded((_dome(shape, frame, side) - y) / 2.2)
        field[side] = np.asarray(inside * cut, np.float32)
        lung[side] = np.maximum(0.30 * width * field[side] - heart, 0.0)
    rng = np.random.default_rng([shape.anatomy.seed, 7])
    hilum = np.exp(
        -0.5 * (((frame.grid[0] - 0.8) / 1.5) ** 2 + ((y - 0.45 * shape.height) / 2.0) ** 2)
    )
    both = field["right"] + field["left"]
    mesh = np.maximum(frame.noise(rng, 0.45), 0.0) + 0.6 * np.maximum(frame.noise(rng, 1.1), 0.0)
    trachea = [(0.25 * _half(shape), -14.0), (0.1 * _half(shape), 0.0), (0.9, 0.4 * shape.height)]
    return Layers(
        frame=frame,
        body=np.asarray(slab, np.float32),
        lung=lung,
        field=field,
        vessel=np.asarray(
            (2.8 * hilum + 0.5 * mesh) * both * 0.6 * shape.anatomy.vessels, np.float32
        ),
        bone=_bones(shape, frame),
        air=1.6 * frame.lines([trachea], 1.7, blur=0.15),
        metal=np.zeros((frame.rows, frame.cols), np.float32),
        density=shape.pose.density,
    )


def _cloud(layers: Layers, shape: Shape, finding: Finding, radius: float) -> Map:
    rng = np.random.default_rng([finding.seed, 8])
    centre = (rng.uniform(-0.3, 0.5) * _half(shape), _ZONE_Y[finding.zone] * shape.height)
    x, y = layers.frame.grid
    square = ((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / np.float32(radius**2)
    return np.asarray(square, np.float32)


def _draw(layers: Layers, shape: Shape, finding: Finding) -> None:
    """Draw one finding; cardiomegaly and volume loss are in the shape already."""
    frame, side, kind = layers.frame, finding.side, finding.kind
    x, y = frame.grid
    if kind == EFFUSION:
        top = shape.dome(side) + 5.5 - (4.5 + 8.0 * finding.grade)
        level = top + 2.5 * (1 - np.abs(x) / np.float32(_half(shape)))
        layers.lung[side] = layers.lung[side] * (1 - 0.96 * step((y - level) / 1.5))
    elif kind == CONSOLIDATION:
        square = _cloud(layers, shape, finding, 3.0 + finding.grade)
        noise = frame.noise(np.random.default_rng([finding.seed, 9]), 0.6)
        share = 0.9 * step(1.5 - square + 0.3 * noise)
        layers.lung[side] = layers.lung[side] * (1 - share)
    elif kind == NODULE:
        radius = finding.millimetres / 20
        square = _cloud(layers, shape, finding, radius)
        layers.vessel += 2.6 * radius * np.sqrt(np.maximum(1 - square, 0.0))
    elif kind == EDEMA:
        wing = np.exp(-0.5 * ((x / 5.0) ** 2 + ((y - 0.5 * shape.height) / 6.0) ** 2))
        for lung in layers.lung.values():
            lung *= 1 - (0.42 + 0.36 * finding.grade) * wing
    elif kind == ATELECTASIS:
        level = shape.dome(side) - 1.5
        plate = [(-0.5 * _half(shape), level), (0.75 * _half(shape), level + 1.5)]
        layers.lung[side] = layers.lung[side] * (1 - 0.9 * frame.lines([plate], 0.8, blur=0.12))
    elif kind == PNEUMOTHORAX:
        gone = step((0.10 + 0.14 * finding.grade - y / np.float32(shape.height)) * 8)
        layers.free += layers.lung[side] * gone
        layers.lung[side] = layers.lung[side] * (1 - gone)
    elif kind == DEVICE:
        layers.metal += _device(shape, frame, finding)


def _device(shape: Shape, frame: Frame, finding: Finding) -> Map:
    half, height = _half(shape), shape.height
    if finding.device == "endotracheal tube":
        return 0.7 * frame.lines(
            [[(0.25 * half, -14.0), (0.1 * half, 0.0), (0.6, 0.22 * height)]], 0.3
        )
    top = [(-0.3 * half, -0.02 * height), (-0.2 * half, 0.2 * height), (-0.5, 0.45 * height)]
    if finding.device == "central venous catheter":
        return 0.8 * frame.lines([smooth(top, closed=False)], 0.24)
    can = [
        (-0.95 * half, 0.12 * height),
        (-0.75 * half, 0.12 * height),
        (-0.85 * half, 0.3 * height),
        (-1.0 * half, 0.28 * height),
    ]
    lead = smooth([*top, (-0.3 * half, 0.7 * height), (-0.6 * half, 0.95 * height)], closed=False)
    return 2.0 * frame.fill(smooth(can)) + 0.9 * frame.lines([lead], 0.22)


def lateral_layers(shape: Shape, frame: Frame, findings: Findings) -> Layers:
    """Return what the beam meets from the side, findings included."""
    layers = _healthy(shape, frame)
    for finding in findings:
        _draw(layers, shape, finding)
    return layers
