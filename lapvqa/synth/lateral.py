"""The lateral chest: simpler than the frontal one, with the same findings in it.

The patient faces the film's left; x grows to the back. Both lungs lie over one another, the arms
are raised.
"""

from __future__ import annotations

from collections.abc import Callable

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
    SIDES,
    Finding,
)
from lapvqa.synth.layers import Frame, Layers, Map, Points, rounded, smooth, step
from lapvqa.synth.patient_history import Findings

_ZONE_Y = {"upper": 0.28, "mid": 0.50, "lower": 0.74}
_CP_DEPTH = 6.2


def half_depth(shape: Shape) -> float:
    """Return half the inner depth of the thorax, sternum to vertebrae."""
    return 0.5 * shape.anatomy.depth - 1.2


def _scaled(shape: Shape, points: list[tuple[float, float]]) -> Points:
    """Return points given in half depths and heights as centimetres."""
    return np.array(points) * [half_depth(shape), shape.height]


def _thorax(shape: Shape) -> Points:
    """Return the inner outline: sternum in front, ribs behind the vertebrae."""
    return smooth(
        _scaled(
            shape,
            [
                (-0.05, 0.00), (-0.50, 0.11), (-0.84, 0.34), (-1.00, 0.62), (-1.04, 1.00),
                (-1.02, 1.50), (1.10, 1.50), (1.22, 1.05), (1.30, 0.70), (1.26, 0.42),
                (1.02, 0.16), (0.52, -0.01),
            ],
        )
    )  # fmt: skip


def _body(shape: Shape) -> Points:
    """Return the skin: chest and back, shoulders and raised arms above."""
    fat = shape.anatomy.wall / half_depth(shape)
    front, back = 1.14 + 0.6 * fat + 0.05 * shape.anatomy.breast, 1.42 + 0.6 * fat
    return smooth(
        _scaled(
            shape,
            [
                (-1.15, -0.80), (-0.95, -0.25), (-0.80, 0.02), (-front + 0.12, 0.30),
                (-front, 0.60), (-front, 0.85), (-front + 0.08, 1.15), (-front - 0.02, 2.0),
                (back - 0.1, 2.0), (back - 0.12, 1.2), (back, 0.70), (back - 0.05, 0.40),
                (back - 0.25, 0.10), (0.95, -0.12), (0.75, -0.80),
            ],
        )
    )  # fmt: skip


def _dome(shape: Shape, frame: Frame, side: str) -> Map:
    """Return y of one hemidiaphragm: highest in front of the middle, deep behind."""
    x = frame.grid[0] / np.float32(half_depth(shape))
    behind = np.clip((x + 0.25) / 1.5, 0.0, 0.999)
    before = np.clip((-0.25 - x) / 0.9, 0.0, 1.0)
    fall = _CP_DEPTH * (1 - np.sqrt(1 - behind**2)) + 2.2 * before**2
    return np.asarray(shape.dome(side) + fall, np.float32)


def _heart(shape: Shape, frame: Frame) -> Map:
    """Return heart, arch and great vessels, cm along the beam."""
    grown = (shape.heart_left + shape.heart_right) / (0.84 * shape.anatomy.width)
    reach = -1.0 + 1.15 * grown
    outline = smooth(
        _scaled(
            shape,
            [
                (-0.93, 0.66), (-0.62, 0.52), (-0.25, 0.40), (0.05, 0.46),
                (0.80 * reach, 0.62), (reach, 0.78), (0.85 * reach, 0.96), (0.0, 1.08),
                (-0.95, 1.12), (-1.02, 0.85),
            ],
        )
    )  # fmt: skip
    arch = smooth(
        _scaled(
            shape,
            [(-0.18, 0.50), (-0.12, 0.33), (0.15, 0.27), (0.42, 0.34), (0.52, 0.6), (0.5, 1.1)],
        ),
        closed=False,
    )
    return np.asarray(
        9.0 * grown * rounded(frame.inset(outline, 4.0)) + 2.0 * frame.lines([arch], 2.4, 0.3),
        np.float32,
    )


def _bones(shape: Shape, frame: Frame) -> Map:
    """Return vertebrae behind, sternum in front, ribs across, shoulder blades, arms."""
    bodies = []
    for level in np.arange(-0.25, 1.5, 0.105):
        lean = 0.66 + 0.25 * np.sin(np.clip((level + 0.15) / 1.3, 0, 1) * np.pi)
        corners = [(lean, -0.038), (lean, 0.040), (lean + 0.25, 0.046), (lean + 0.25, -0.030)]
        bodies.append(_scaled(shape, [(x, y + level) for x, y in corners]))
    ribs = [
        smooth(
            _scaled(
                shape,
                [(1.28, y), (0.95, y - 0.01), (0.3, y + 0.07), (-0.45, y + 0.24), (-0.8, y + 0.29)],
            ),
            closed=False,
        )
        for y in np.arange(0.06, 0.85, 0.1)
    ]
    sternum = smooth(_scaled(shape, [(-0.5, 0.08), (-0.88, 0.32), (-1.06, 0.66)]), closed=False)
    blade = smooth(_scaled(shape, [(0.62, 0.0), (1.1, 0.02), (1.12, 0.36), (0.98, 0.38)]))
    arm = _scaled(shape, [(0.1, 0.02), (-0.25, -0.3), (-0.3, -0.9)])
    bone = 0.9 * frame.fill(*bodies, blur=0.1) + 0.8 * frame.lines([sternum], 1.0, 0.06)
    bone += 0.5 * (frame.lines(ribs, 0.9, 0.04) - 0.55 * frame.lines(ribs, 0.6, 0.04))
    bone += 0.5 * frame.fill(blade, blur=0.08) + 1.2 * frame.lines([arm], 2.4, 0.15)
    return np.asarray(bone * shape.anatomy.bone, np.float32)


def _texture(shape: Shape, frame: Frame) -> Map:
    """Return hila and vessels, seen end-on and crossing."""
    rng = np.random.default_rng([shape.anatomy.seed, 7])
    x, y = frame.grid
    root = ((x - 0.1) / 1.6) ** 2 + ((y - np.float32(0.47 * shape.height)) / 2.1) ** 2
    angle = rng.uniform(0, 2 * np.pi, 70)
    start = np.column_stack([np.cos(angle), np.sin(angle)]) * rng.uniform(0.5, 5.0, (70, 1))
    start[:, 1] += 0.48 * shape.height
    length = rng.uniform(0.8, 2.8, (70, 1))
    bend = angle + rng.normal(0, 0.4, 70)
    ends = start + np.column_stack([np.cos(bend), np.sin(bend)]) * length
    tree = frame.lines(np.stack([start, ends], axis=1), 0.28, 0.08)
    mesh = np.maximum(frame.noise(rng, 0.5), 0.0)
    total = 2.6 * np.exp(-0.5 * root) + 0.8 * tree + 0.25 * mesh
    return np.asarray(total * shape.anatomy.vessels, np.float32)


def _healthy(shape: Shape, frame: Frame) -> Layers:
    """Return the lateral chest without the findings that are drawn on top."""
    width, y = 2 * shape.anatomy.width, frame.grid[1]
    slab = 0.86 * width + 9.0 * step((2.5 - y) / 5.0)
    body = slab * rounded(frame.inset(_body(shape), 7.0))
    inside = rounded(frame.inset(_thorax(shape), 4.5))
    heart = 0.5 * _heart(shape, frame)
    lung, field = {}, {}
    for side in SIDES:
        cut = rounded((_dome(shape, frame, side) - y) / 2.4)
        field[side] = np.asarray(inside * cut, np.float32)
        lung[side] = np.maximum(np.float32(0.33 * width) * field[side] - heart, 0.0)
    trachea = _scaled(shape, [(0.35, -0.6), (0.12, 0.0), (0.05, 0.42)])
    return Layers(
        frame=frame,
        body=np.asarray(body, np.float32),
        lung=lung,
        field=field,
        vessel=_texture(shape, frame) * np.minimum(field["right"] + field["left"], 1.0),
        bone=_bones(shape, frame),
        air=1.6 * frame.lines([smooth(trachea, closed=False)], 1.7, 0.15),
        metal=np.zeros((frame.rows, frame.cols), np.float32),
        density=shape.pose.density,
    )


def _take(layers: Layers, side: str, share: Map) -> None:
    layers.lung[side] = layers.lung[side] * (1.0 - share)


def _distance(layers: Layers, shape: Shape, finding: Finding, radius: float) -> Map:
    """Return squared distance from a finding's centre, in radii."""
    rng = np.random.default_rng([finding.seed, 8])
    centre_x = rng.uniform(-0.3, 0.6) * half_depth(shape)
    centre_y = _ZONE_Y[finding.zone] * shape.height
    x, y = layers.frame.grid
    return np.asarray(((x - centre_x) ** 2 + (y - centre_y) ** 2) / radius**2, np.float32)


def _effusion(layers: Layers, shape: Shape, finding: Finding) -> None:
    top = shape.dome(finding.side) + _CP_DEPTH - (8.0 + 6.5 * finding.grade)
    x, y = layers.frame.grid
    surface = top + 2.5 * (1 - np.abs(x) / np.float32(1.2 * half_depth(shape)))
    _take(layers, finding.side, 0.96 * step((y - surface) / 1.5))


def _consolidation(layers: Layers, shape: Shape, finding: Finding) -> None:
    square = _distance(layers, shape, finding, 3.2 + finding.grade)
    noise = layers.frame.noise(np.random.default_rng([finding.seed, 9]), 1.2)
    _take(layers, finding.side, 0.88 * step(1.4 - square + 0.25 * noise))


def _nodule(layers: Layers, shape: Shape, finding: Finding) -> None:
    radius = finding.millimetres / 20
    inner = np.maximum(1 - _distance(layers, shape, finding, radius), 0.0)
    layers.vessel += np.float32(2.6 * radius) * np.sqrt(inner)


def _edema(layers: Layers, shape: Shape, finding: Finding) -> None:
    x, y = layers.frame.grid
    wing = np.exp(-0.5 * ((x / 5.0) ** 2 + ((y - np.float32(0.5 * shape.height)) / 6.0) ** 2))
    for side in SIDES:
        _take(layers, side, np.float32(0.42 + 0.36 * finding.grade) * wing)


def _atelectasis(layers: Layers, shape: Shape, finding: Finding) -> None:
    level = shape.dome(finding.side) - 1.5
    plate = [(-0.5 * half_depth(shape), level), (0.75 * half_depth(shape), level + 1.5)]
    _take(layers, finding.side, 0.85 * layers.frame.lines([plate], 0.8, 0.2))


def _pneumothorax(layers: Layers, shape: Shape, finding: Finding) -> None:
    edge = 0.10 + 0.14 * finding.grade
    gone = step((edge - layers.frame.grid[1] / np.float32(shape.height)) * 8)
    layers.free += layers.lung[finding.side] * gone
    _take(layers, finding.side, gone)


def _draw_device(scale: tuple[float, float], frame: Frame, finding: Finding) -> Map:
    """Return a device's attenuation from the side; ``scale``: half depth and lung height, cm."""
    if finding.device == "endotracheal tube":
        tube = np.array([(0.33, -0.6), (0.12, 0.0), (0.06, 0.22)]) * scale
        return 0.75 * frame.lines([smooth(tube, closed=False)], 0.3)
    vein = np.array([(-0.3, -0.05), (-0.2, 0.2), (-0.05, 0.45)])
    if finding.device == "central venous catheter":
        return 0.85 * frame.lines([smooth(vein * scale, closed=False)], 0.24)
    heart = np.array([(-0.3, 0.7), (-0.65, 0.95)])
    lead = smooth(np.vstack([vein, heart]) * scale, closed=False)
    can = smooth(np.array([(-0.85, 0.10), (-0.66, 0.12), (-0.8, 0.30), (-0.96, 0.28)]) * scale)
    return np.asarray(2.0 * frame.fill(can) + 0.95 * frame.lines([lead], 0.22), np.float32)


def _device(layers: Layers, shape: Shape, finding: Finding) -> None:
    scale = (half_depth(shape), shape.height)
    layers.metal += _draw_device(scale, layers.frame, finding)


_DRAW: dict[str, Callable[[Layers, Shape, Finding], None]] = {
    ATELECTASIS: _atelectasis,
    CONSOLIDATION: _consolidation,
    DEVICE: _device,
    EDEMA: _edema,
    EFFUSION: _effusion,
    NODULE: _nodule,
    PNEUMOTHORAX: _pneumothorax,
}
"""Cardiomegaly is in the shape already, as is the raised dome of atelectasis."""


def lateral_layers(shape: Shape, frame: Frame, findings: Findings) -> Layers:
    """Return what the beam meets from the side, findings included."""
    layers = _healthy(shape, frame)
    for finding in findings:
        if finding.kind in _DRAW:
            _DRAW[finding.kind](layers, shape, finding)
    return layers
