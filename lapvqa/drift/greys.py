"""The greys of a film in ten numbers: what an encoder's smaller input averages away.

Noise and sharpness of a film vanish where its 384 pixels become 64: an encoder cannot see that a
detector or its processing was changed, these numbers can.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_MARGIN = 64
"""Pixels left out at each edge: padding and collimation, which go by the shape of a film."""
_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def describe(films: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return [n, 10] of stored films [n, 384, 384]: quantiles, deviation, noise, sharpness.

    Noise as Immerkaer estimates it, Computer Vision and Image Understanding 64 (1996); sharpness is
    the mean step between neighbours. Both as logarithms: they differ by factors.
    """
    return np.stack([_describe(film) for film in films])


def _describe(film: NDArray[np.uint8]) -> NDArray[np.float64]:
    inside = film[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN].astype(np.float32)
    down = inside[:-2] - 2 * inside[1:-1] + inside[2:]
    both = down[:, :-2] - 2 * down[:, 1:-1] + down[:, 2:]
    noise = math.sqrt(math.pi / 2) / 6 * float(np.abs(both).mean())
    steps = float(np.abs(np.diff(inside, axis=0)).mean() + np.abs(np.diff(inside, axis=1)).mean())
    return np.array([
        *np.quantile(inside, _QUANTILES), inside.std(), math.log(noise + 0.1),
        math.log(steps + 0.1),
    ])  # fmt: skip
