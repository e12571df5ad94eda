"""One exposure to a radiograph: what the beam meets, scatter, noise, processing, window."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lapvqa.synth.anatomy import Anatomy, sample_frame, sample_pose, shape_of
from lapvqa.synth.frontal import frontal_layers
from lapvqa.synth.lateral import lateral_layers
from lapvqa.synth.layers import Box, Frame, Layers, Map
from lapvqa.synth.pathology import draw
from lapvqa.synth.patient_history import Findings, stream


@dataclass(frozen=True)
class Exposure:
    """All that one image depends on."""

    anatomy: Anatomy
    findings: Findings
    view: str
    """PA, AP or LATERAL."""
    size: int
    """Pixels of the longer side."""
    aspect: float
    """Width over height."""
    key: tuple[int, ...]
    """Of its random stream: posture, film, noise."""


@dataclass(frozen=True)
class Radiograph:
    """A finished image; ``boxes`` are parallel to the findings drawn, native pixels (xyxy)."""

    film: Film
    frame: Frame
    findings: Findings
    boxes: tuple[tuple[Box, ...], ...]


def render(exposure: Exposure) -> Radiograph:
    """Take the picture; equal exposures give equal pixels."""
    layers, boxes = chest(exposure)
    rng = stream(*exposure.key, 1)
    technique = sample_technique(rng)
    image = expose(layers.attenuation(), layers.frame, technique, rng)
    film = develop(image, layers.frame, technique)
    return Radiograph(film, layers.frame, exposure.findings, boxes)


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


@dataclass(frozen=True)
class Technique:
    """One exposure and its processing; drawn without a look at the findings."""

    scatter: float
    """Scattered over primary intensity."""
    noise: float
    """Standard deviation of log intensity behind a water path of mean transmission."""
    blur: float
    """Detector and focus, cm."""
    flatten: float
    """Share of the wide-area contrast that the processing takes away."""
    sharpen: float
    middle: float
    """Where the tone curve puts the film's median: automatic exposure aims, and varies."""
    low: float
    """Where the window begins, relative to the film's own range."""
    high: float
    margin: tuple[float, float]
    """Latitude stored below and above the window, relative to its width."""
    border: tuple[float, float, float, float]
    """Collimator shutters: share of the film dark at top, right, bottom, left."""
    slope: tuple[float, float]
    """Fall of exposure across and down the film (heel effect, tilted grid), log units per film."""


def sample_technique(rng: np.random.Generator) -> Technique:
    """Draw an exposure."""
    shut = rng.random() < 0.4
    border = rng.uniform(0.0, 0.08, 4) * (rng.random(4) < 0.6) * shut
    return Technique(
        scatter=rng.uniform(0.25, 1.0),
        noise=float(np.exp(rng.uniform(np.log(0.006), np.log(0.06)))),
        blur=float(np.exp(rng.uniform(np.log(0.02), np.log(0.13)))),
        flatten=rng.uniform(0.0, 0.65),
        sharpen=rng.uniform(0.0, 2.2),
        middle=rng.uniform(0.28, 0.72),
        low=rng.uniform(-0.25, 0.15),
        high=rng.uniform(-0.18, 0.38),
        margin=(rng.uniform(0.03, 0.35), rng.uniform(0.03, 0.35)),
        border=(float(border[0]), float(border[1]), float(border[2]), float(border[3])),
        slope=(rng.normal(0.0, 0.75), rng.normal(0.0, 0.75)),
    )


def expose(attenuation: Map, frame: Frame, technique: Technique, rng: np.random.Generator) -> Map:
    """Return log exposure (bright = dense), processed, float32, arbitrary units."""
    primary = np.exp(-frame.blur(attenuation, technique.blur))
    # Air would outshine everything; detectors saturate near it.
    np.minimum(primary, 0.6, out=primary)
    total = primary + technique.scatter * frame.blur(primary, 3.5)
    grain = rng.standard_normal(total.shape, dtype=np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), 0.6)
    total *= 1.0 + np.clip(technique.noise * np.sqrt(0.1 / total) * grain, -0.6, 3.0)
    image = -np.log(total)
    image -= technique.flatten * frame.blur(image, 4.0)
    image += technique.sharpen * (image - frame.blur(image, 0.35))
    across, down = technique.slope
    image += np.linspace(-0.5 * across, 0.5 * across, frame.cols, dtype=np.float32)
    image += np.linspace(-0.5 * down, 0.5 * down, frame.rows, dtype=np.float32)[:, None]
    return np.asarray(image, np.float32)


@dataclass(frozen=True)
class Film:
    """Presentation values 0..1 over the stored latitude, and the window chosen within it."""

    values: Map
    """0..1 float32, bright = dense; beyond the window where latitude allows."""
    window: tuple[float, float]
    """Lower and upper end of the display window, in the same unit."""

    def displayed(self) -> NDArray[np.uint8]:
        """Return what a viewer shows: 8-bit, air dark."""
        low, high = self.window
        scaled = np.clip((self.values - low) / (high - low), 0.0, 1.0)
        return np.asarray(np.round(255 * scaled), np.uint8)


def develop(image: Map, frame: Frame, technique: Technique) -> Film:
    """Choose window and tone curve from the film's own range, close the shutters."""
    rows, cols = image.shape
    inner = image[rows // 10 : -rows // 10 : 5, cols // 10 : -cols // 10 : 5]
    dark, median, bright = (float(value) for value in np.percentile(inner, [4, 50, 97]))
    low = dark + technique.low * (bright - dark)
    high = bright + technique.high * (bright - dark)
    below, above = technique.margin
    full = 1 + below + above
    bottom, width = low - below * (high - low), full * (high - low)
    gamma = _gamma((median - low) / (high - low), technique.middle, below, full)
    steps = np.linspace(0.0, 1.0, 4096, dtype=np.float32) ** np.float32(gamma)
    index = np.clip((image - np.float32(bottom)) * np.float32(4095 / width), 0, 4095)
    values = steps[index.astype(np.int16)]
    top, right, base, left = technique.border
    values[: int(top * rows)] = 0.0
    values[rows - int(base * rows) :] = 0.0
    values[:, : int(left * cols)] = 0.0
    values[:, cols - int(right * cols) :] = 0.0
    window = (below / full) ** gamma, ((below + 1) / full) ** gamma
    return Film(values, window)


def _gamma(median: float, aim: float, below: float, full: float) -> float:
    """Return the exponent that shows the film's median at ``aim`` of the window."""
    candidates = np.linspace(0.45, 2.4, 40)
    ends = [(place / full) ** candidates for place in (below, below + median, below + 1)]
    shown = (ends[1] - ends[0]) / (ends[2] - ends[0])
    return float(candidates[np.argmin(np.abs(shown - aim))])
