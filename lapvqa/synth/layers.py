"""The film's plane and what the beam meets: outlines in centimetres, thickness maps, attenuation.

The patient's frame: x grows to the patient's left (the film's right), y downwards, y = 0 at the
top of the lungs. Shapes are curves in centimetres, rasterised only at the end.

Attenuation coefficients are those of about 70 keV, in 1/cm: soft tissue 0.20, aerated lung a
quarter of it, cortical bone 0.55 (0.35 more than the tissue it replaces).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lapvqa.synth.findings import SIDES

Map = NDArray[np.float32]
Points = NDArray[np.float64]
Values = NDArray[np.floating]
"""Of either precision: numpy's types cannot tell what a Python number makes of a Map."""
Box = tuple[float, float, float, float]

_SHIFT = 4
"""Fractional bits of the coordinates handed to OpenCV."""

MU_SOFT = 0.20
MU_LUNG = 0.055
MU_BONE = 0.35


def smooth(points: ArrayLike, *, closed: bool = True, rounds: int = 3) -> Points:
    """Return the curve that cutting the corners of ``points`` converges to (Chaikin), (N, 2)."""
    curve = np.asarray(points, np.float64)
    for _ in range(rounds):
        following = np.roll(curve, -1, axis=0) if closed else curve[1:]
        here = curve if closed else curve[:-1]
        cut = np.stack([0.75 * here + 0.25 * following, 0.25 * here + 0.75 * following], axis=1)
        middle = cut.reshape(-1, 2)
        curve = middle if closed else np.vstack([curve[:1], middle, curve[-1:]])
    return curve


def rounded(fraction: Values) -> Map:
    """Return the chord of a round edge: 0 at the rim, 1 from ``fraction`` = 1 inwards."""
    inner = np.clip(fraction, 0.0, 1.0)
    return np.asarray(np.sqrt(inner * (2.0 - inner)), np.float32)


def step(value: Values) -> Map:
    """Return a smooth step: 0 up to 0, 1 from 1 on."""
    inner = np.clip(value, 0.0, 1.0)
    return np.asarray(inner * inner * (3.0 - 2.0 * inner), np.float32)


@dataclass(frozen=True)
class Frame:
    """The film: ``rows`` x ``cols`` pixels and the map from centimetres to pixels."""

    rows: int
    cols: int
    scale: float
    """Pixels per centimetre."""
    tilt: float
    """Rotation in the plane of the film, radians."""
    centre: tuple[float, float]
    """Point of the patient (cm) that lies in the middle of the film."""

    @cached_property
    def matrix(self) -> NDArray[np.float64]:
        """2 x 3 affine matrix, centimetres to pixels."""
        cos, sin = self.scale * np.cos(self.tilt), self.scale * np.sin(self.tilt)
        linear = np.array([[cos, -sin], [sin, cos]])
        middle = np.array([self.cols / 2, self.rows / 2]) - linear @ np.array(self.centre)
        return np.column_stack([linear, middle])

    @cached_property
    def grid(self) -> tuple[Map, Map]:
        """x and y in centimetres of every pixel, float32 (rows, cols)."""
        inverse = np.linalg.inv(self.matrix[:, :2])
        col = np.arange(self.cols, dtype=np.float32)[None, :] - np.float32(self.matrix[0, 2])
        row = np.arange(self.rows, dtype=np.float32)[:, None] - np.float32(self.matrix[1, 2])
        (a, b), (c, d) = inverse.astype(np.float32)
        return a * col + b * row, c * col + d * row

    def pixels(self, points: ArrayLike) -> Points:
        """Map points in centimetres (..., 2) to pixels."""
        flat = np.asarray(points, np.float64)
        return np.asarray(flat @ self.matrix[:, :2].T + self.matrix[:, 2])

    def _fixed(self, points: ArrayLike) -> NDArray[np.int32]:
        return np.round(self.pixels(points) * (1 << _SHIFT)).astype(np.int32)

    def fill(self, *outlines: ArrayLike, blur: float = 0.0) -> Map:
        """Return the union of closed outlines (cm) as 0..1, its edge blurred by ``blur`` cm."""
        canvas = np.zeros((self.rows, self.cols), np.uint8)
        for outline in outlines:
            cv2.fillPoly(canvas, [self._fixed(outline)], 255, cv2.LINE_AA, _SHIFT)
        return self.soften(canvas, blur)

    def inset(self, outline: ArrayLike, depth: float) -> Map:
        """Return distance inside an outline over ``depth`` cm: 0 outside and at the rim."""
        canvas = np.zeros((self.rows, self.cols), np.uint8)
        cv2.fillPoly(canvas, [self._fixed(outline)], 255, cv2.LINE_8, _SHIFT)
        distance = cv2.distanceTransform(canvas, cv2.DIST_L2, 3)
        return np.asarray(distance * np.float32(1 / (depth * self.scale)), np.float32)

    def strokes(
        self,
        lines: Sequence[ArrayLike] | Points,
        width: float,
        canvas: NDArray[np.uint8],
        value: int,
    ) -> None:
        """Draw open curves (cm) of ``width`` cm into an 8-bit canvas with ``value``.

        Curves of equal length may come as one array (n, points, 2), which is faster.
        """
        thickness = max(1, round(width * self.scale))
        if isinstance(lines, np.ndarray):
            fixed = list(self._fixed(lines))
        else:
            fixed = [self._fixed(line) for line in lines]
        cv2.polylines(canvas, fixed, False, value, thickness, cv2.LINE_AA, _SHIFT)

    def lines(self, lines: Sequence[ArrayLike] | Points, width: float, blur: float = 0.0) -> Map:
        """Return open curves (cm) of ``width`` cm as 0..1."""
        canvas = np.zeros((self.rows, self.cols), np.uint8)
        self.strokes(lines, width, canvas, 255)
        return self.soften(canvas, blur)

    def soften(self, canvas: NDArray[np.uint8], sigma: float) -> Map:
        """Blur an 8-bit canvas by ``sigma`` cm and return it as 0..1."""
        pixels = sigma * self.scale
        if pixels > 0.3:
            canvas = np.asarray(cv2.GaussianBlur(canvas, (0, 0), pixels), np.uint8)
        return canvas.astype(np.float32) * np.float32(1 / 255)

    def blur(self, image: Map, sigma: float) -> Map:
        """Blur by a Gaussian of ``sigma`` cm; wide ones on a coarser grid, for speed."""
        pixels = sigma * self.scale
        if pixels < 0.3:
            return image
        factor = int(pixels // 2.5)
        if factor < 2:
            return np.asarray(cv2.GaussianBlur(image, (0, 0), pixels), np.float32)
        small = cv2.resize(
            image, (-(-self.cols // factor), -(-self.rows // factor)), interpolation=cv2.INTER_AREA
        )
        small = cv2.GaussianBlur(small, (0, 0), pixels / factor)
        return np.asarray(
            cv2.resize(small, (self.cols, self.rows), interpolation=cv2.INTER_LINEAR), np.float32
        )

    def noise(self, rng: np.random.Generator, size: float) -> Map:
        """Return smooth noise with grains of ``size`` cm, about standard normal."""
        rows = int(self.rows / (size * self.scale)) + 4
        cols = int(self.cols / (size * self.scale)) + 4
        coarse = rng.standard_normal((rows, cols), dtype=np.float32)
        return np.asarray(
            cv2.resize(coarse, (self.cols, self.rows), interpolation=cv2.INTER_CUBIC), np.float32
        )

    def bounds(self, mask: NDArray[np.bool_]) -> Box | None:
        """Return the box (x0, y0, x1, y1) around the true pixels; None if there are none."""
        cols = np.flatnonzero(mask.any(axis=0))
        rows = np.flatnonzero(mask.any(axis=1))
        if not len(cols):
            return None
        return float(cols[0]), float(rows[0]), float(cols[-1] + 1), float(rows[-1] + 1)


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
