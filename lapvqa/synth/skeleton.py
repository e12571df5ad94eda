"""The bones of the frontal chest: ribs, spine, clavicles, scapulae, shoulders."""

from __future__ import annotations

import numpy as np

from lapvqa.synth.anatomy import Shape
from lapvqa.synth.layers import Frame, Map, Points, smooth

_RIBS = 10


def _rib(shape: Shape, index: int, sign: int, *, front: bool) -> Points:
    """Return one rib's arc: half an ellipse from the spine around the side to the front.

    A rib lies in a plane that falls forwards, so in projection x = a sin(phi) and y falls with
    1 - cos(phi): the back arcs run outwards, the front arcs come back lower down.
    """
    anatomy, height = shape.anatomy, shape.height
    start = -1.3 + index * anatomy.rib_gap * height / 22.0
    drop = anatomy.rib_drop * (0.55 + 0.09 * index) * height / 22.0
    side = start + 0.5 * drop
    relative = np.interp(
        side / height, [-0.05, 0.05, 0.2, 0.4, 0.7, 1.0], [0.42, 0.6, 0.80, 0.93, 0.99, 1.0]
    )
    reach = anatomy.width * relative + 0.35
    turn = np.linspace(0.5 * np.pi, 0.80 * np.pi, 14) if front else np.linspace(0.02, 1.75, 18)
    x = reach * np.sin(turn)
    y = start + 0.5 * drop * (1 - np.cos(turn)) - 0.9 * np.sin(2 * turn) * (0 if front else 1)
    return np.column_stack([sign * x, y])


def _ribs(shape: Shape, frame: Frame, *, front: bool) -> Map:
    """Return one family of ribs as hollow tubes: bright cortex, fainter inside."""
    width = shape.anatomy.rib_width * (0.95 if front else 1.0)
    count = 7 if front else _RIBS
    arcs = [_rib(shape, index, sign, front=front) for index in range(count) for sign in (-1, 1)]
    canvas = np.zeros((frame.rows, frame.cols), np.uint8)
    frame.strokes(arcs, width, canvas, 255)
    frame.strokes(arcs, width - 0.26, canvas, 120)
    return frame.soften(canvas, 0.05)


def _spine(shape: Shape, frame: Frame) -> Map:
    """Return vertebral bodies, pedicles and spinous processes down the midline."""
    height, bend = shape.height, shape.anatomy.scoliosis
    pitch = 0.105 * height
    bodies, pedicles, spines = [], [], []
    for index in range(-4, 14):
        y = -1.0 + index * pitch
        x = bend * np.sin(1.6 * np.pi * y / height)
        half, tall = 1.45 + 0.035 * index, 0.42 * pitch
        bodies.append(
            smooth(
                [
                    (x - half, y - tall), (x - 0.9 * half, y), (x - half, y + tall),
                    (x + half, y + tall), (x + 0.9 * half, y), (x + half, y - tall),
                ],
                rounds=2,
            )
        )  # fmt: skip
        turn = np.linspace(0, 2 * np.pi, 10)
        ring = np.column_stack([0.28 * np.cos(turn), 0.42 * np.sin(turn)])
        pedicles += [ring + (x + side * 0.95, y - 0.2) for side in (-1, 1)]
        spines.append([(x + 0.35 * shape.shift, y + 0.1), (x + 0.35 * shape.shift, y + 0.8)])
    bone = 0.42 * frame.fill(*bodies, blur=0.08)
    bone += 0.3 * frame.lines(pedicles, 0.2, blur=0.06)
    bone += 0.3 * frame.lines(spines, 0.4, blur=0.08)
    return bone


def _shoulder(shape: Shape, sign: int) -> tuple[Points, Points, Points]:
    """Return outlines of clavicle (a line), scapula and head of the humerus of one side."""
    width, height, lift = shape.anatomy.width, shape.height, 1.3 * shape.pose.lift
    inner = 1.9 + sign * 0.7 * shape.shift
    clavicle = smooth(
        [
            (inner, 0.115 * height), (0.30 * width, 0.085 * height), (0.60 * width, 0.00),
            (0.95 * width, -0.3 - 0.8 * lift), (1.22 * width, 0.6 - lift),
        ],
        closed=False,
    )  # fmt: skip
    tip = 0.93 if shape.pose.view == "AP" else 1.06
    scapula = smooth(
        [
            (0.80 * width, 1.0 - 0.5 * lift), (1.18 * width, 0.8 - lift),
            (1.26 * width, 3.0), (1.20 * width, 0.30 * height),
            (tip * width, 0.55 * height), ((tip - 0.06) * width, 0.53 * height),
            (0.85 * width, 0.28 * height),
        ]
    )  # fmt: skip
    turn = np.linspace(0, 2 * np.pi, 16)
    head = np.column_stack([2.3 * np.cos(turn), 2.3 * np.sin(turn)])
    head += (1.38 * width, 2.4 - lift)
    mirror = np.array([sign, 1.0])
    return clavicle * mirror, scapula * mirror, head * mirror


def draw_skeleton(shape: Shape, frame: Frame) -> Map:
    """Return the thickness of bone along the beam, cm of cortical bone."""
    back, front = _ribs(shape, frame, front=False), _ribs(shape, frame, front=True)
    # The beam runs along a rib where it turns around the side: more bone in its way.
    side = 1.0 + 0.9 * np.clip(np.abs(frame.grid[0]) / shape.anatomy.width, 0, 1.1) ** 6
    bone = (0.80 * back + 0.55 * front) * side + _spine(shape, frame) + _girdle(shape, frame)
    return np.asarray(bone * shape.anatomy.bone, np.float32)


def _girdle(shape: Shape, frame: Frame) -> Map:
    """Return both clavicles, shoulder blades and arms."""
    clavicles, scapulae, heads = zip(*(_shoulder(shape, sign) for sign in (-1, 1)), strict=True)
    canvas = np.zeros((frame.rows, frame.cols), np.uint8)
    frame.strokes(clavicles, 1.25, canvas, 255)
    frame.strokes(clavicles, 0.85, canvas, 150)
    bone = 1.1 * frame.soften(canvas, 0.06)
    bone += 0.22 * frame.fill(*scapulae, blur=0.05) + 0.22 * frame.lines(scapulae, 0.22, blur=0.05)
    bone += 0.8 * frame.fill(*heads, blur=0.12)
    arm = np.array([(1.42 * shape.anatomy.width, 3.0), (2.1 * shape.anatomy.width, 14.0)])
    bone += 0.7 * frame.lines([arm, arm * [-1, 1]], 2.3, blur=0.15)
    return bone
