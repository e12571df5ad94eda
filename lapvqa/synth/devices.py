"""Support devices: thin bright lines of tubes, catheters and leads, the can of a pacemaker."""

from __future__ import annotations

import numpy as np

from lapvqa.synth.anatomy import Shape
from lapvqa.synth.findings import Finding
from lapvqa.synth.geometry import Frame, Map, Points, smooth


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


def frontal_device(shape: Shape, frame: Frame, finding: Finding) -> tuple[Map, Points]:
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


def lateral_device(scale: tuple[float, float], frame: Frame, finding: Finding) -> Map:
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
