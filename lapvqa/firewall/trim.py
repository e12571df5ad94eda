"""What of a film is picture: borders of one grey are cut off."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Film = NDArray[np.uint8]

_FLAT = 1.0  # grey levels from the border's own that are still border
_FAINT = 0.05  # the same, as a share of the picture's deviation: a border that was saved as JPEG
_PRINT, _SPECKS = 0.15, 0.02  # of a line's pixels that may differ: letters in a black border
_BLACK = 8  # a brighter one may be overexposed skin, which no copy has to have lost


def trim(film: Film) -> Film:
    """Return the view of a film, uint8 [H, W], without its uniform borders, one in another too.

    Relative to the film's own contrast, so that a pale film keeps its edges. A film of one grey
    stays whole. ValueError for another dtype, number of axes, or no pixels.
    """
    if film.dtype != np.uint8 or film.ndim != 2 or not film.size:
        raise ValueError(f"expected a grey film, uint8 [H, W], found {film.dtype} {film.shape}")
    picture = _cut(film, _FLAT)
    return _cut(picture, max(_FLAT, _FAINT * float(picture.std())))


def _cut(film: Film, near: float) -> Film:
    """Take borders away until no side has one."""
    while True:
        top, bottom = _border(film, near), _border(film[::-1], near)
        left, right = _border(film.T, near), _border(film.T[::-1], near)
        if not any((top, bottom, left, right)):
            return film
        film = film[top : len(film) - bottom, left : film.shape[1] - right]


def _border(film: Film, near: float) -> int:
    """Return how many lines at the top are of the first one's grey; 0 if all are."""
    grey = float(np.median(film[0]))
    other = _PRINT if grey <= _BLACK else _SPECKS
    for line, pixels in enumerate(film):
        if np.count_nonzero(np.abs(pixels - grey) > near) > other * len(pixels):
            return line
    return 0
