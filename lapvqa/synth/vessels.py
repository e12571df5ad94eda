"""The lungs' vessels: a tree that branches from each hilum, thinner with every generation."""

from __future__ import annotations

import numpy as np

from lapvqa.synth.anatomy import Shape
from lapvqa.synth.findings import SIDES
from lapvqa.synth.geometry import Frame, Map, Points

_GENERATIONS = 8


def _tree(
    rng: np.random.Generator, root: tuple[float, float], sign: int, size: float
) -> list[Points]:
    """Return the segments of one lung's vessels by generation: each (n, 2, 2) in cm."""
    main = np.linspace(-1.25, 1.25, 9) + rng.normal(0.0, 0.12, 9)
    angle = np.concatenate([main, main[::2] + rng.normal(0.0, 0.2, 5)])
    place = np.array(root) + rng.normal(0.0, 0.5, (len(angle), 2))
    place[:, 1] += 1.6 * np.sin(angle)
    generations = []
    for generation in range(_GENERATIONS):
        length = size * (0.085 - 0.004 * generation) * rng.uniform(0.6, 1.3, len(angle))
        step = np.column_stack([sign * np.cos(angle), np.sin(angle)]) * length[:, None]
        generations.append(np.stack([place, place + step], axis=1))
        place = place + step
        fork = rng.random(len(angle)) < 0.55
        turn = rng.choice([-1.0, 1.0], len(angle)) * rng.uniform(0.3, 0.75, len(angle))
        angle_on = angle - 0.25 * turn * fork + rng.normal(0.0, 0.13, len(angle))
        place = np.concatenate([place, place[fork]])
        angle = np.concatenate([angle_on, (angle + turn)[fork]])
    return generations


def draw_vessels(shape: Shape, frame: Frame, fields: dict[str, Map]) -> Map:
    """Return vessels and hila of both lungs, cm of soft tissue along the beam."""
    total = np.zeros((frame.rows, frame.cols), np.float32)
    for number, side in enumerate(SIDES):
        rng = np.random.default_rng([shape.anatomy.seed, 1, number])
        sign = -1 if side == "right" else 1
        root = (
            sign * 3.2 + 0.6 * shape.shift,
            shape.height * (0.485 if side == "right" else 0.455),
        )
        canvas = np.zeros((frame.rows, frame.cols), np.uint8)
        generations = _tree(rng, root, sign, shape.height)
        for generation in reversed(range(_GENERATIONS)):
            width = 0.75 * 0.76**generation
            value = int(235 * 0.83**generation)
            frame.strokes(generations[generation], width, canvas, value)
        tree = frame.soften(canvas, 0.05)
        distance = (frame.grid[0] - np.float32(root[0])) ** 2 / 4.0
        distance += (frame.grid[1] - np.float32(root[1])) ** 2 / 9.0
        core = np.exp(-0.5 * distance)
        total += (2.6 * tree + 3.2 * core) * np.minimum(fields[side] * 1.6, 1.0)
    rng = np.random.default_rng([shape.anatomy.seed, 3])
    texture = frame.noise(rng, 0.35)
    total += 0.2 * (1 + texture) * (fields[SIDES[0]] + fields[SIDES[1]])
    return np.asarray(total * shape.anatomy.vessels, np.float32)
