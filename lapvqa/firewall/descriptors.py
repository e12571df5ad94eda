"""A film in bits: what stays when it is recompressed, toned, inverted, cropped or framed anew."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BITS = 1024
BYTES = BITS // 8
VERSION = 1  # stored bits of another version are made anew
ORIENTATIONS = ("upright", "mirrored", "turned 90", "turned 180", "turned 270")

Film = NDArray[np.uint8]
Bits = NDArray[np.uint8]


def describe(image: Film) -> Bits:
    """Return the descriptor of a grey film uint8 [H, W], any size: uint8 [BYTES].

    A film and its complement have the same bits. ValueError for another dtype or shape.
    """
    raise NotImplementedError


def orientations(bits: Bits) -> Bits:
    """Return the bits [N, BYTES] of films in each of ``ORIENTATIONS``: uint8 [5, N, BYTES]."""
    raise NotImplementedError
