"""The frontal (PA, AP) chest: outlines and thickness maps of body, lungs, heart and vessels."""

from __future__ import annotations

import numpy as np

from lapvqa.synth.anatomy import Shape
from lapvqa.synth.findings import SIDES
from lapvqa.synth.layers import Frame, Layers, Map, Points, rounded, smooth, step
from lapvqa.synth.skeleton import draw_skeleton

# Half the inner width of the thorax at a height, both relative (y / height, x / width).
_CAGE_Y = np.array([0.0, 0.035, 0.13, 0.27, 0.45, 0.65, 0.85, 1.05, 1.25, 1.6])
_CAGE_X = np.array([0.40, 0.58, 0.74, 0.865, 0.945, 0.985, 1.0, 1.0, 0.985, 0.95])

_LUNG_RIM = 4.5
_GENERATIONS = 8
"""Of the vessels' tree, which branches from each hilum, thinner with every generation."""
_MEDIASTINUM = 2.1
CP_DEPTH = 4.6
"""How far the costophrenic angle lies below the dome."""


def sign_of(side: str) -> int:
    """Return -1 for the patient's right (the film's left), 1 for the left."""
    return -1 if side == "right" else 1


def wall_x(shape: Shape, y: float) -> float:
    """Return half the inner width of the thorax at height ``y``."""
    relative = np.interp(y / shape.height, _CAGE_Y, _CAGE_X)
    return float(shape.anatomy.width * relative ** (1 / shape.anatomy.taper))


def hilum(shape: Shape, side: str) -> tuple[float, float]:
    """Return the root of one lung; the left lies a little higher."""
    lift = 0.015 if side == "right" else -0.015
    return sign_of(side) * 3.4 + shape.shift * 0.6, shape.height * (0.47 + lift)


def cage(shape: Shape, side: str) -> Points:
    """Return the outline of one side of the thorax; open below, the dome cuts the lung."""
    sign, height, width = sign_of(side), shape.height, shape.anatomy.width
    wall = [(wall_x(shape, y * height), y * height) for y in _CAGE_Y[1:]]
    middle = _MEDIASTINUM
    outline = [
        (middle, height + 9.0),
        (middle, 0.20 * height),
        (middle + 0.3, 0.09 * height),
        (0.25 * width, 0.012 * height),
        (0.40 * width, -0.004 * height),
        *wall,
        (wall[-1][0], height + 9.0),
    ]
    return smooth([(sign * x, y) for x, y in outline])


def dome_y(shape: Shape, frame: Frame, side: str) -> Map:
    """Return y of one hemidiaphragm over every pixel: a dome, steep at the lateral angle."""
    x = frame.grid[0] * np.float32(sign_of(side))
    top, crest = shape.dome(side), 0.47 * shape.anatomy.width
    reach = shape.anatomy.width * 1.0 - crest
    lateral = np.clip((x - crest) / reach, 0.0, 0.999)
    medial = np.clip((crest - x) / crest, 0.0, 1.0)
    fall = CP_DEPTH * (1 - np.sqrt(1 - lateral**2)) + 2.3 * medial**2
    return np.asarray(top + fall, np.float32)


def heart_outline(shape: Shape) -> Points:
    """Return heart and great vessels below the aortic arch, clockwise from the right base."""
    height, right, left = shape.height, shape.heart_right, shape.heart_left
    tilt = shape.anatomy.heart_tilt
    bottom = height + 1.2 + 0.6 * tilt
    outline = [
        (-2.3, 0.40 * height),
        (-2.6, 0.53 * height),
        (-0.93 * right, 0.64 * height),
        (-1.07 * right, 0.77 * height),
        (-0.98 * right, 0.90 * height),
        (-0.62 * right, bottom),
        (0.25 * left, bottom + 1.6),
        (0.70 * left, bottom + 1.7),
        (0.97 * left, (0.97 + 0.03 * tilt) * height + 0.6),
        (1.07 * left, (0.88 + 0.03 * tilt) * height),
        (0.93 * left, (0.75 + 0.02 * tilt) * height),
        (0.66 * left, 0.61 * height),
        (0.50 * left, 0.51 * height),
        (0.45 * left, 0.44 * height),
        (2.2, 0.36 * height),
    ]
    return smooth(np.array(outline) + [shape.shift, 0.0])


def body_outline(shape: Shape) -> Points:
    """Return skin, neck to abdomen; the arms leave the film."""
    height, lift = shape.height, 1.3 * shape.pose.lift
    chest = shape.anatomy.width + shape.anatomy.wall
    right_half = [
        (5.3, -16.0),
        (5.4, -6.0),
        (6.4, -3.9 - 0.4 * lift),
        (10.5, -2.6 - lift),
        (15.0, -1.2 - 1.4 * lift),
        (18.8, 1.2 - lift),
        (23.0, 5.5),
        (33.0, 13.0),
        (33.0, 24.0),
        (chest + 3.6, 0.50 * height),
        (chest + 0.9, 0.56 * height),
        (chest + 0.3, 0.70 * height),
        (chest, height),
        (chest - 0.3, height + 5.0),
        (chest, height + 18.0),
    ]
    left_half = [(-x, y) for x, y in reversed(right_half)]
    return smooth(right_half + left_half)


def _body(shape: Shape, frame: Frame) -> Map:
    """Return the outer thickness: round at the flanks, thinner at neck and shoulders."""
    depth = shape.anatomy.depth
    y = frame.grid[1]
    slab = 0.52 * depth + 0.48 * depth * step((y + 5.0) / 11.0)
    return slab * rounded(frame.inset(body_outline(shape), 0.36 * depth))


def _lungs(shape: Shape, frame: Frame) -> tuple[dict[str, Map], dict[str, Map]]:
    """Return air thickness and projection of both lungs, cut by heart, arch and domes."""
    anatomy = shape.anatomy
    thick = anatomy.depth - 4.5 - 0.3 * anatomy.wall
    heart = 0.66 * thick * rounded(frame.inset(heart_outline(shape), 4.2))
    blocked = heart + _arch(shape, frame)
    lungs, fields = {}, {}
    for side in SIDES:
        below = dome_y(shape, frame, side) - frame.grid[1]
        cut = rounded(below / 2.6)
        sulcus = 0.10 * step((below + 3.2) / 3.2)
        inside = rounded(frame.inset(cage(shape, side), _LUNG_RIM))
        fields[side] = np.asarray(inside * cut, np.float32)
        full = thick * inside * np.maximum(cut, sulcus)
        lungs[side] = np.maximum(full - blocked, 0.0)
    return lungs, fields


def _arch(shape: Shape, frame: Frame) -> Map:
    """Return lung displaced by aortic knob, descending aorta, pulmonary trunk and vena cava."""
    height, radius, shift = shape.height, shape.anatomy.aorta, shape.shift
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    circle = np.column_stack([np.cos(turn), np.sin(turn)])
    knob = circle * [radius, 1.15 * radius] + [2.0 + shift + 0.4 * radius, 0.285 * height]
    trunk = circle * [1.5, 1.9] + [2.7 + shift, 0.435 * height]
    cava = [(-1.0, 0.02 * height), (-2.9, 0.1 * height), (-2.8, 0.5 * height), (-1.0, 0.5 * height)]
    aorta = [(1.0, 0.27 * height), (3.5, 0.27 * height), (2.6, height + 3), (0.6, height + 3)]
    moved = [np.array(part) + [shift, 0.0] for part in (cava, aorta)]
    displaced = (
        7.0 * rounded(frame.inset(knob, 2.2))
        + 5.0 * rounded(frame.inset(trunk, 2.2))
        + 3.5 * frame.fill(smooth(moved[0]), blur=0.15)
        + 3.2 * frame.fill(smooth(moved[1]), blur=0.1)
    )
    return np.asarray(displaced, np.float32)


def _airways(shape: Shape, frame: Frame) -> Map:
    """Return the air of trachea, main bronchi and the stomach's bubble, cm."""
    height, shift = shape.height, 0.5 * shape.shift
    carina = (0.35 + shift, 0.385 * height)
    trachea = [(0.0, -14.0), (0.0, -2.0), (0.2 + shift, 0.18 * height), carina]
    right = [carina, (carina[0] - 1.7, carina[1] + 2.0), (carina[0] - 3.0, carina[1] + 3.4)]
    left = [carina, (carina[0] + 2.0, carina[1] + 1.7), (carina[0] + 3.8, carina[1] + 2.6)]
    air = 1.9 * frame.lines([trachea], 1.7, blur=0.12)
    air += 0.8 * frame.lines([right, left], 1.0, blur=0.12)
    rng = np.random.default_rng([shape.anatomy.seed, 2])
    if rng.random() < 0.7:
        turn = np.linspace(0, 2 * np.pi, 14, endpoint=False)
        size = rng.uniform(1.2, 2.6)
        bubble = np.column_stack([1.3 * size * np.cos(turn), 0.75 * size * np.sin(turn)])
        bubble *= rng.uniform(0.8, 1.2, (14, 1))
        centre = (rng.uniform(4.5, 7.5), height + 3.5 + 0.75 * size)
        air += 4.0 * frame.fill(smooth(bubble + centre), blur=0.25)
    for _ in range(int(rng.integers(0, 4))):
        turn = np.linspace(0, 2 * np.pi, 10, endpoint=False)
        gas = np.column_stack([np.cos(turn), np.sin(turn)]) * rng.uniform(0.6, 1.5, (10, 1))
        place = (rng.uniform(-8, 10), height + rng.uniform(8.0, 13.0))
        air += rng.uniform(1.0, 2.5) * frame.fill(smooth(gas + place), blur=0.2)
    return np.asarray(air, np.float32)


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
        way = np.column_stack([sign * np.cos(angle), np.sin(angle)]) * length[:, None]
        generations.append(np.stack([place, place + way], axis=1))
        place = place + way
        fork = rng.random(len(angle)) < 0.55
        turn = rng.choice([-1.0, 1.0], len(angle)) * rng.uniform(0.3, 0.75, len(angle))
        angle_on = angle - 0.25 * turn * fork + rng.normal(0.0, 0.13, len(angle))
        place = np.concatenate([place, place[fork]])
        angle = np.concatenate([angle_on, (angle + turn)[fork]])
    return generations


def _vessels(shape: Shape, frame: Frame, fields: dict[str, Map]) -> Map:
    """Return vessels and hila of both lungs, cm of soft tissue along the beam."""
    total = np.zeros((frame.rows, frame.cols), np.float32)
    for number, side in enumerate(SIDES):
        rng = np.random.default_rng([shape.anatomy.seed, 1, number])
        sign = sign_of(side)
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


def _breasts(shape: Shape, frame: Frame) -> Map:
    """Return the breasts: domes with a soft lower fold."""
    anatomy = shape.anatomy
    total = np.zeros((frame.rows, frame.cols), np.float32)
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    for sign in (-1, 1):
        centre = (sign * 0.60 * anatomy.width, 0.74 * shape.height + 0.4 * anatomy.breast)
        radii = (0.44 * anatomy.width, 4.2 + 0.5 * anatomy.breast)
        outline = np.column_stack([np.cos(turn), np.sin(turn)]) * radii + centre
        total += anatomy.breast * rounded(frame.inset(outline, 4.5))
    return total


def frontal_layers(shape: Shape, frame: Frame) -> Layers:
    """Return the healthy frontal chest for a shape: every thickness map but the findings'."""
    lungs, fields = _lungs(shape, frame)
    layers = Layers(
        frame=frame,
        body=_body(shape, frame),
        lung=lungs,
        field=fields,
        vessel=_vessels(shape, frame, fields),
        bone=draw_skeleton(shape, frame),
        air=_airways(shape, frame),
        metal=np.zeros((frame.rows, frame.cols), np.float32),
        density=shape.pose.density,
    )
    if shape.anatomy.breast:
        layers.soft += _breasts(shape, frame)
    return layers
