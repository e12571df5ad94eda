"""What is done to films between two archives: twelve kinds of edits, each in several ways.

The tests and benchmarks/bench_firewall.py plant them. A film is uint8 [H, W] without padding; an
edit may give it another size.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Film = NDArray[np.uint8]
Edit = Callable[[Film, np.random.Generator], Film]


def jpeg(film: Film, quality: int) -> Film:
    saved = cv2.imencode(".jpg", film, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(saved, cv2.IMREAD_GRAYSCALE)


def resized(film: Film, factor: float, *, stretch: float = 1.0) -> Film:
    height, width = film.shape
    return cv2.resize(
        film, (round(width * factor * stretch), round(height * factor)),
        interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC,
    )  # fmt: skip


def toned(film: Film, tone: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Film:
    """Apply a curve of greys, 0 to 1."""
    curve = tone(np.arange(256) / 255)
    return np.rint(255 * np.clip(curve, 0, 1)).astype(np.uint8)[film]


def gamma(film: Film, exponent: float) -> Film:
    return toned(film, lambda grey: grey**exponent)


def sigmoid(grey: NDArray[np.float64]) -> NDArray[np.float64]:
    ends = 1 / (1 + np.exp(np.array([4.0, -4.0])))
    return (1 / (1 + np.exp(-8 * (grey - 0.5))) - ends[0]) / (ends[1] - ends[0])


def cropped(film: Film, sides: NDArray[np.float64]) -> Film:
    """Cut shares of the left, top, right and bottom off."""
    height, width = film.shape
    left, top, right, bottom = np.rint(sides * [width, height, width, height]).astype(int)
    return film[top : height - bottom, left : width - right]


def framed(film: Film, share: float, grey: int) -> Film:
    rows, columns = (round(share * side) for side in film.shape)
    return cv2.copyMakeBorder(
        film, rows, rows, columns, columns, cv2.BORDER_CONSTANT, value=[grey]
    )  # fmt: skip


def rotated(film: Film, degrees: float) -> Film:
    height, width = film.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    return cv2.warpAffine(film, turn, (width, height), flags=cv2.INTER_LINEAR)


def printed(film: Film, rng: np.random.Generator) -> Film:
    """Burn three lines of text in, at any place, white."""
    film = film.copy()
    height, width = film.shape
    for text in ("PORTABLE AP 10:42", "L", "WARD 7 2017-03-12"):
        corner = int(rng.uniform(0.02, 0.5) * width), int(rng.uniform(0.05, 0.95) * height)
        thick = max(1, width // 200)
        cv2.putText(film, text, corner, cv2.FONT_HERSHEY_SIMPLEX, width / 450, [255], thick)
    return film


def _both(rng: np.random.Generator, size: float) -> float:
    return float(size * rng.choice([-1, 1]))


KINDS: dict[str, dict[str, Edit]] = {
    "JPEG": {
        "quality 30": lambda film, rng: jpeg(film, 30),
        "quality 60": lambda film, rng: jpeg(film, 60),
    },
    "resize": {
        "to 50 %": lambda film, rng: resized(film, 0.5),
        "to 70 %, 10 % wider": lambda film, rng: resized(film, 0.7, stretch=1.1),
    },
    "tone": {
        "brightness +25 %": lambda film, rng: toned(film, lambda grey: 1.25 * grey),
        "gamma 0.6": lambda film, rng: gamma(film, 0.6),
        "gamma 1.6": lambda film, rng: gamma(film, 1.6),
        "sigmoid": lambda film, rng: toned(film, sigmoid),
    },
    "CLAHE": {"limit 3, 8 x 8": lambda film, rng: cv2.createCLAHE(3.0, (8, 8)).apply(film)},
    "inversion": {"complement": lambda film, rng: 255 - film},
    "crop to 5 %": {
        "each side up to 5 %": lambda film, rng: cropped(film, rng.uniform(0, 0.05, 4)),
        "every side 5 %": lambda film, rng: cropped(film, np.full(4, 0.05)),
    },
    "crop to 10 %": {
        "each side up to 10 %": lambda film, rng: cropped(film, rng.uniform(0, 0.1, 4)),
        "every side 10 %": lambda film, rng: cropped(film, np.full(4, 0.1)),
    },
    "border": {
        "black 10 %": lambda film, rng: framed(film, 0.1, 0),
        "white 10 %": lambda film, rng: framed(film, 0.1, 255),
    },
    "rotation": {
        "2 degrees": lambda film, rng: rotated(film, _both(rng, 2)),
        "5 degrees": lambda film, rng: rotated(film, _both(rng, 5)),
    },
    "text": {"three lines": printed},
    "combination": {
        "crop, gamma, JPEG, resize": lambda film, rng: resized(
            jpeg(gamma(cropped(film, rng.uniform(0, 0.05, 4)), 0.6), 50), 0.6
        ),
        "rotation, crop, inversion, JPEG": lambda film, rng: jpeg(
            255 - cropped(rotated(film, _both(rng, 2)), rng.uniform(0, 0.05, 4)), 50
        ),
    },
    "mirrored or turned": {
        "mirrored": lambda film, rng: film[:, ::-1],
        "turned 90": lambda film, rng: np.rot90(film, -1),
        "turned 180": lambda film, rng: np.rot90(film, 2),
        "turned 270": lambda film, rng: np.rot90(film),
        "mirrored, crop, gamma": lambda film, rng: gamma(
            cropped(film[:, ::-1], rng.uniform(0, 0.05, 4)), 0.6
        ),
    },
}
