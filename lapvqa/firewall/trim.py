"""What of a film is picture: borders of one grey are cut off."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Film = NDArray[np.uint8]

_FLAT = 0.5  # standard deviation of grey in a line without picture
_FAINT = 0.05  # the same, as a share of the picture's: a border that was saved as JPEG


def trim(film: Film) -> Film:
    """Return the view of a film, uint8 [H, W], without its uniform borders, one in another too.

    Relative to the film's own contrast, so that a pale film keeps its edges. A film of one grey
    stays whole. ValueError for another dtype, number of axes, or no pixels.
    """
    if film.dtype != np.uint8 or film.ndim != 2 or not film.size:
        raise ValueError(f"expected a grey film, uint8 [H, W], found {film.dtype} {film.shape}")
    picture = _cut(film, _FLAT)
    return _cut(picture, _FAINT * float(picture.std()))


def _cut(film: Film, flat: float) -> Film:
    while True:
        rows = _inside(film.std(axis=1) > flat)
        columns = _inside(film[rows].std(axis=0) > flat)
        picture = film[rows, columns]
        if picture.shape == film.shape:
            return film
        film = picture


def _inside(lively: NDArray[np.bool_]) -> slice:
    """Return from the first to the last line that has a picture; all of them if none has."""
    lines = np.flatnonzero(lively)
    return slice(int(lines[0]), int(lines[-1]) + 1) if len(lines) else slice(0, len(lively))
