"""Findings on the frontal chest, drawn as what they do to the beam.

Fluid and consolidation take aerated lung away, pleural air takes lung and vessels away, a nodule
adds soft tissue, a device adds metal. Every function changes the layers and returns the boxes (in
native pixels) that a reader would draw around the change.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lapvqa.synth.anatomy import Shape
from lapvqa.synth.findings import (
    ATELECTASIS,
    CARDIOMEGALY,
    CONSOLIDATION,
    DEVICE,
    EDEMA,
    EFFUSION,
    NODULE,
    PNEUMOTHORAX,
    SIDES,
    Finding,
)
from lapvqa.synth.frontal import CP_DEPTH, cage, heart_outline, hilum, sign_of, wall_x
from lapvqa.synth.layers import Box, Frame, Layers, Map, Points, smooth, step

_ZONE_Y = {"upper": 0.24, "mid": 0.50, "lower": 0.76}
"""Centre of a lung zone, relative to the lung's height."""


def _clip(box: Box, frame: Frame) -> Box:
    x0, y0, x1, y1 = box
    return (
        float(np.clip(x0, 0, frame.cols - 1)), float(np.clip(y0, 0, frame.rows - 1)),
        float(np.clip(x1, 1, frame.cols)), float(np.clip(y1, 1, frame.rows)),
    )  # fmt: skip


def box_around(points: Points, frame: Frame, *, margin: float = 0.0) -> Box:
    """Return the box around points (cm), grown by ``margin`` cm, within the film."""
    pixels = frame.pixels(points)
    grow = margin * frame.scale
    (x0, y0), (x1, y1) = pixels.min(axis=0) - grow, pixels.max(axis=0) + grow
    return _clip((float(x0), float(y0), float(x1), float(y1)), frame)


def _boxes(mask: np.ndarray, frame: Frame) -> list[Box]:
    box = frame.bounds(mask)
    return [] if box is None else [box]


def zone_centre(shape: Shape, finding: Finding, reach: float) -> tuple[float, float]:
    """Return a point of a zone at least ``reach`` cm inside the chest wall."""
    rng = np.random.default_rng([finding.seed, 0])
    y = (_ZONE_Y[finding.zone] + rng.uniform(-0.05, 0.05)) * shape.height
    outer = wall_x(shape, y) - reach
    inner = 3.6 if finding.zone == "upper" else 4.8
    if finding.zone == "lower" and finding.side == "left":
        inner = max(inner, 0.72 * shape.heart_left)
    x = inner + (max(outer, inner + 0.1) - inner) * rng.uniform(0.3, 0.8)
    return finding.sign * x, y


def _cardiomegaly(layers: Layers, shape: Shape, finding: Finding) -> list[Box]:
    """The shape is widened already; the box is the heart below the great vessels."""
    outline = heart_outline(shape)
    return [box_around(outline[outline[:, 1] > 0.47 * shape.height], layers.frame, margin=0.2)]


def _fill_lung(layers: Layers, side: str, share: Map) -> Map:
    """Replace a share (0..1) of one lung's air by soft tissue; return what was taken, cm."""
    taken = layers.lung[side] * share
    layers.lung[side] = layers.lung[side] - taken
    # What is no longer aerated does not contrast with its vessels.
    layers.vessel *= 1.0 - 0.85 * share * np.minimum(layers.field[side] * 2, 1)
    return taken


def _effusion(layers: Layers, shape: Shape, finding: Finding) -> list[Box]:
    """Fluid with a meniscus that climbs the lateral wall."""
    frame = layers.frame
    height = 8.5 + 7.5 * finding.grade
    top = shape.dome(finding.side) + CP_DEPTH - height
    x = np.abs(frame.grid[0])
    reach = np.clip((x - 2.0) / (shape.anatomy.width - 2.0), 0.0, 1.0)
    surface = top + 2.4 * (1.0 - reach**2.5)
    share = 0.96 * step((frame.grid[1] - surface + 0.4) / 1.6)
    taken = _fill_lung(layers, finding.side, share)
    return _boxes(taken > 0.8, frame)


def _pneumothorax(layers: Layers, shape: Shape, finding: Finding) -> list[Box]:
    """The lung falls away from apex and lateral wall; air without markings beyond its edge."""
    frame, side = layers.frame, finding.side
    outline = cage(shape, side)
    root = np.array(hilum(shape, side))
    collapse = 0.20 + 0.34 * finding.grade
    outward = np.clip((np.abs(outline[:, 0]) - 2.2) / 3.0, 0.0, 1.0)
    depth = outline[:, 1] / shape.height
    upness = 1.0 - (0.75 - 0.5 * finding.grade) * np.clip((depth - 0.25) / 0.6, 0.0, 1.0)
    inner = outline + (root - outline) * (collapse * outward * upness)[:, None]
    # The collapsed lung ends where the dome does; its outline below does not matter.
    inner[depth > 1.05, 1] = outline[depth > 1.05, 1]
    lung = frame.fill(inner)
    air = 1.0 - lung
    taken = layers.lung[side] * air
    layers.lung[side] = layers.lung[side] - taken
    layers.free += taken
    inside = np.minimum(layers.field[side] * 2, 1)
    layers.vessel *= 1.0 - air * (inside > 0)
    edge = inner[(outward > 0.3) & (depth < 1.02)]
    layers.vessel += 1.3 * frame.lines([edge], 0.14) * inside
    return _boxes(taken > 0.5, frame)


def _cloud(frame: Frame, finding: Finding, centre: tuple[float, float], radius: float) -> Map:
    """Return an irregular cloud 0..1: overlapping puffs, mottled."""
    rng = np.random.default_rng([finding.seed, 1])
    field = np.zeros((frame.rows, frame.cols), np.float32)
    x, y = frame.grid
    for _ in range(7):
        place = np.array(centre) + rng.normal(0.0, 0.42 * radius, 2)
        size = radius * rng.uniform(0.40, 0.70)
        field += np.exp(-0.5 * ((x - place[0]) ** 2 + (y - place[1]) ** 2) / np.float32(size**2))
    mottle = 1.0 + 0.22 * frame.noise(rng, 1.1) + 0.12 * frame.noise(rng, 0.5)
    return np.asarray(step(0.8 * field * np.maximum(mottle, 0.3)), np.float32)


def _consolidation(layers: Layers, shape: Shape, finding: Finding) -> list[Box]:
    """Airless lung in one zone, with air bronchograms."""
    frame = layers.frame
    radius = 3.9 + 1.1 * finding.grade
    centre = zone_centre(shape, finding, 0.9 * radius)
    cloud = _cloud(frame, finding, centre, radius)
    share = 0.92 * cloud
    root = np.array(hilum(shape, finding.side))
    rng = np.random.default_rng([finding.seed, 2])
    ends = np.array(centre) + rng.normal(0.0, 0.5 * radius, (6, 2))
    tubes = [np.array([0.55 * root + 0.45 * np.array(centre), end]) for end in ends]
    share = share * (1.0 - 0.25 * frame.lines(tubes, 0.2, blur=0.1))
    taken = _fill_lung(layers, finding.side, share)
    return _boxes(taken > 1.2, frame)


def _nodule(layers: Layers, shape: Shape, finding: Finding) -> list[Box]:
    """A ball of soft tissue, slightly denser than water."""
    frame, radius = layers.frame, finding.millimetres / 20
    centre = zone_centre(shape, finding, radius + 0.8)
    x, y = frame.grid
    square = 1.0 - ((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / np.float32(radius**2)
    layers.vessel += (
        2.6 * radius * np.sqrt(np.maximum(square, 0.0)) * (layers.field[finding.side] > 0.05)
    )
    corner = np.array(
        [[centre[0] - radius, centre[1] - radius], [centre[0] + radius, centre[1] + radius]]
    )
    return [box_around(corner, frame, margin=0.1)]


def _edema(layers: Layers, shape: Shape, finding: Finding) -> list[Box]:
    """Haze that spreads from both hila, blurred broad vessels, septal lines at the bases."""
    frame, boxes = layers.frame, []
    rng = np.random.default_rng([finding.seed, 3])
    grain = 1.0 + 0.10 * frame.noise(rng, 0.6) + 0.13 * frame.noise(rng, 1.6)
    for side in SIDES:
        root = hilum(shape, side)
        x = (frame.grid[0] - np.float32(root[0])) / np.float32(0.36 * shape.anatomy.width)
        y = (frame.grid[1] - np.float32(root[1] + 1.0)) / np.float32(0.30 * shape.height)
        wing = np.exp(-0.5 * (x**2 + y**2))
        share = np.clip(wing * grain, 0.0, 1.2) * (0.42 + 0.36 * finding.grade)
        taken = layers.lung[side] * np.minimum(share, 0.95)
        layers.lung[side] = layers.lung[side] - taken
        lines = _septal_lines(shape, side, rng)
        layers.vessel += 0.5 * frame.lines(lines, 0.1) * layers.field[side]
        boxes += _boxes((taken > 1.6) & (layers.field[side] > 0), frame)
    upper = step((0.5 * shape.height - frame.grid[1]) / 3.0)
    layers.vessel *= 1.0 + 0.8 * finding.grade * upper
    return boxes


def _septal_lines(shape: Shape, side: str, rng: np.random.Generator) -> list[Points]:
    lines = []
    for y in rng.uniform(0.62, 1.08, 10) * shape.height:
        outer = wall_x(shape, y) - 0.2
        length = rng.uniform(1.0, 2.2)
        ends = [(outer - length, y + rng.normal(0, 0.1)), (outer, y)]
        lines.append(np.array(ends) * [sign_of(side), 1.0])
    return lines


def _atelectasis(layers: Layers, shape: Shape, finding: Finding) -> list[Box]:
    """Plates of collapsed lung above a raised hemidiaphragm."""
    frame = layers.frame
    rng = np.random.default_rng([finding.seed, 4])
    top, width = shape.dome(finding.side), shape.anatomy.width
    mirror = np.array([finding.sign, 1.0])
    plates = []
    for number in range(2 + (finding.grade > 0.5)):
        inner = 2.8 + rng.uniform(0.0, 1.0) + 0.8 * number
        outer = min(0.92 * width, inner + 6.0 + 4.0 * finding.grade - number)
        level = top - 1.2 - 1.7 * number - rng.uniform(0.0, 0.5)
        rise, thickness = rng.uniform(-0.5, 1.0), rng.uniform(1.0, 1.7)
        plates.append(_plate(inner, outer, level, rise, thickness) * mirror)
    share = 0.95 * frame.fill(*plates, blur=0.3)
    _fill_lung(layers, finding.side, share)
    base = np.array([(2.2, top), (width, top + CP_DEPTH + 1.0), (width, top - 2.0)]) * mirror
    return [box_around(np.vstack([*plates, base]), frame, margin=0.4)]


def _plate(inner: float, outer: float, level: float, rise: float, thickness: float) -> Points:
    """Return a lens from ``inner`` to ``outer`` that climbs by ``rise`` towards the midline."""
    along = np.linspace(0.0, 1.0, 12)
    middle = level - rise * (1 - along) ** 2 - 0.4 * np.sin(np.pi * along)
    half = 0.5 * thickness * np.sqrt(np.sin(np.pi * np.clip(along, 0.02, 0.98)))
    x = inner + (outer - inner) * along
    upper, lower = np.column_stack([x, middle - half]), np.column_stack([x, middle + half])
    return np.vstack([upper, lower[::-1]])


def _tube(shape: Shape, rng: np.random.Generator) -> Points:
    tip = (0.25 + 0.4 * shape.shift, shape.height * rng.uniform(0.18, 0.29))
    return smooth([(rng.uniform(-0.6, 0.6), -16.0), (0.0, -4.0), (0.1, 0.0), tip], closed=False)


def _catheter(shape: Shape, rng: np.random.Generator) -> Points:
    tip = (-2.4 + shape.shift, shape.height * rng.uniform(0.38, 0.55))
    if rng.random() < 0.6:  # by the internal jugular vein, else by the arm
        start = [(-4.3, -16.0), (-3.9, -6.0), (-3.4, -1.0)]
    else:
        width = shape.anatomy.width
        start = [(-1.9 * width, 8.0), (-1.35 * width, 3.2), (-0.8 * width, 0.9), (-3.6, 1.3)]
    return smooth([*start, (-2.5 + shape.shift, 0.16 * shape.height), tip], closed=False)


def _leads(shape: Shape, can: tuple[float, float]) -> list[Points]:
    height = shape.height
    way = [can, (5.0, 0.6), (0.5, 0.07 * height), (-2.3 + shape.shift, 0.24 * height)]
    ventricle = [
        (-2.5 + shape.shift, 0.62 * height),
        (0.5, 0.98 * height),
        (0.62 * shape.heart_left, 0.99 * height),
    ]
    atrium = [
        (-2.6 + shape.shift, 0.58 * height),
        (-2.0, 0.76 * height),
        (-0.7 * shape.heart_right, 0.69 * height),
    ]
    return [smooth([*way, *ventricle], closed=False), smooth([*way, *atrium], closed=False)]


def _draw_device(shape: Shape, frame: Frame, finding: Finding) -> tuple[Map, Points]:
    """Return a device's attenuation and its points (cm)."""
    rng = np.random.default_rng([finding.seed, 5])
    if finding.device == "endotracheal tube":
        line = _tube(shape, rng)
        metal = 0.18 * frame.lines([line], 0.9) + 0.75 * frame.lines([line + [0.35, 0]], 0.16)
        return np.asarray(metal, np.float32), line
    if finding.device == "central venous catheter":
        line = _catheter(shape, rng)
        return np.asarray(0.85 * frame.lines([line], 0.24), np.float32), line
    can = np.array([0.62 * shape.anatomy.width, shape.height * rng.uniform(0.10, 0.16)])
    corners = np.array([(-2.3, -1.9), (2.3, -2.2), (2.4, 1.6), (1.0, 2.5), (-2.0, 2.1)])
    leads = _leads(shape, (can[0] - 1.0, can[1] - 1.2))
    metal = 2.2 * frame.fill(smooth(corners + can), blur=0.03)
    metal += 0.95 * frame.lines(leads, 0.2) + 0.8 * frame.lines([leads[0][-5:], leads[1][-5:]], 0.3)
    return np.asarray(metal, np.float32), np.vstack([corners + can, *leads])


def _device(layers: Layers, shape: Shape, finding: Finding) -> list[Box]:
    metal, lines = _draw_device(shape, layers.frame, finding)
    layers.metal += metal
    return [box_around(lines, layers.frame, margin=0.4)]


_DRAW: dict[str, Callable[[Layers, Shape, Finding], list[Box]]] = {
    ATELECTASIS: _atelectasis,
    CARDIOMEGALY: _cardiomegaly,
    CONSOLIDATION: _consolidation,
    EDEMA: _edema,
    EFFUSION: _effusion,
    PNEUMOTHORAX: _pneumothorax,
    NODULE: _nodule,
    DEVICE: _device,
}


def draw(layers: Layers, shape: Shape, finding: Finding) -> list[Box]:
    """Draw one finding into the layers; return its boxes in native pixels (x0, y0, x1, y1)."""
    return _DRAW[finding.kind](layers, shape, finding)
