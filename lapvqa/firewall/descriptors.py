"""A film in bits: what stays when it is recompressed, toned, inverted, cropped or framed anew.

Histograms of oriented gradients (Dalal and Triggs, CVPR 2005) of the trimmed film and of its inner
part, less those of a typical chest, as the signs of fixed projections (Charikar, STOC 2002).
Perceptual hashes, made for photographs, lose a radiograph that is cropped by 5 %: docs/firewall.md.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

import cv2
import numpy as np
from numpy.typing import NDArray

from lapvqa.firewall.trim import Film, trim

VERSION = 1
"""Of the recipe: bits of another version are to be made anew."""
BITS = 2048
"""Of one window of a film."""
WINDOWS = (0.0, 0.075)
"""What is cut from each side, as a share: a cropped film resembles the other's inner window."""
BYTES = len(WINDOWS) * BITS // 8
ORIENTATIONS = ("upright", "mirrored", "turned 90", "turned 180", "turned 270")

Bits = NDArray[np.uint8]
Vectors = NDArray[np.float32]

_CELLS, _HALF_CELL, _BINS = 12, 4, 12
_SIDE = _CELLS * 2 * _HALF_CELL  # 96
_CLIP = 0.2
_FAINT_ENERGY = 0.64  # of a block of 2 x 2 cells: no contrast is made of nothing


def describe(image: Film) -> Bits:
    """Return the descriptor of a grey film uint8 [H, W], any size: uint8 [BYTES].

    A film and its complement have nearly the same bits, films without contrast the same ones.
    ValueError for another dtype or number of axes. About 5 ms.
    """
    bits: Bits = _bits(image, ORIENTATIONS[:1])[0]
    return bits


def describe_turned(image: Film) -> Bits:
    """Return the descriptors of a film in each of ``ORIENTATIONS``: uint8 [5, BYTES]."""
    return _bits(image, ORIENTATIONS)


def turned(image: Film, orientation: str) -> Film:
    """Return the film in one of ``ORIENTATIONS``: mirrored left to right, or turned clockwise."""
    if orientation == "mirrored":
        return image[:, ::-1]
    quarters = {"upright": 0, "turned 90": -1, "turned 180": 2, "turned 270": 1}
    return np.rot90(image, quarters[orientation])


def _bits(image: Film, orientations: tuple[str, ...]) -> Bits:
    picture = trim(image)
    cells = [_cells(_window(picture, cut)) for cut in WINDOWS]
    vectors = [_blocks(_turned_cells(one, name)) for name in orientations for one in cells]
    signs = (np.stack(vectors) - typical_chest()) @ _projections() > 0
    return np.packbits(signs, axis=1).reshape(len(orientations), BYTES)


def _window(picture: Film, cut: float) -> Film:
    rows, columns = (round(cut * side) for side in picture.shape)
    return picture[rows : picture.shape[0] - rows, columns : picture.shape[1] - columns]


def _cells(window: Film) -> Vectors:
    """Return energy by place and direction: float32 [12, 12, 12], votes shared by neighbours.

    The gradient's sign does not count, so that a film and its complement agree.
    """
    level = cv2.equalizeHist(np.ascontiguousarray(window))
    small = cv2.resize(level, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    framed = np.pad(small, 1, mode="edge")
    across = framed[1:-1, 2:] - framed[1:-1, :-2]
    down = framed[2:, 1:-1] - framed[:-2, 1:-1]
    votes = np.hypot(across, down)
    direction = np.arctan2(down, across) * (_BINS / np.pi) % _BINS
    first = np.floor(direction)
    share = direction - first
    first = first.astype(np.intp) % _BINS
    base = _places()
    grid = np.zeros((2 * _CELLS, 2 * _CELLS, _BINS))
    for bins, weights in ((first, votes * (1 - share)), ((first + 1) % _BINS, votes * share)):
        grid += np.bincount(base + bins.ravel(), weights.ravel(), grid.size).reshape(grid.shape)
    return _gather(_gather(grid).swapaxes(0, 1)).swapaxes(0, 1).astype(np.float32)


@cache
def _places() -> NDArray[np.intp]:
    """Return of each pixel, row by row, where its half cell's histogram starts."""
    half = np.arange(_SIDE) // _HALF_CELL
    return ((half[:, None] * 2 * _CELLS + half) * _BINS).ravel()


def _gather(grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add up half cells [24, ...] to cells [12, ...], each reaching into its neighbours."""
    framed = np.pad(grid, ((1, 1), (0, 0), (0, 0)))
    return (framed[:-3:2] + 3 * framed[1:-2:2] + 3 * framed[2:-1:2] + framed[3::2]) / 4


def _turned_cells(cells: Vectors, orientation: str) -> Vectors:
    """Return the cells of the turned film, without a look at the film."""
    if orientation == "mirrored":
        return cells[:, ::-1, -np.arange(_BINS) % _BINS]
    moved: Vectors = turned(cells, orientation)  # type: ignore[arg-type, assignment]
    quarter = orientation in ("turned 90", "turned 270")
    return np.roll(moved, _BINS // 2, axis=2) if quarter else moved


def _blocks(cells: Vectors) -> Vectors:
    """Return the cells relative to each of the four 2 x 2 blocks around them, clipped: [1728]."""
    energy = np.pad((cells**2).sum(axis=2), 1)
    blocks = energy[:-1, :-1] + energy[1:, :-1] + energy[:-1, 1:] + energy[1:, 1:]
    scale = 1 / np.sqrt(blocks + _FAINT_ENERGY)
    corners = [scale[y : y + _CELLS, x : x + _CELLS, None] for y in (0, 1) for x in (0, 1)]
    out: Vectors = np.sum([np.minimum(cells * one, _CLIP) for one in corners], axis=0).ravel()
    return out


@cache
def typical_chest() -> Vectors:
    """Return what radiographs have in common, float32 [1728]: docs/make_typical_chest.py."""
    with (files("lapvqa.firewall") / "typical_chest.npy").open("rb") as file:
        stored = np.load(file)
    chest: Vectors = stored.ravel().astype(np.float32) / 255
    return chest


@cache
def _projections() -> Vectors:
    """Return the fixed directions, 1 or -1 in float32 [1728, BITS], the same on every machine."""
    size = _CELLS * _CELLS * _BINS
    digest = hashlib.shake_256(b"lapvqa firewall 1").digest(size * BITS // 8)
    bits = np.unpackbits(np.frombuffer(digest, np.uint8)).reshape(size, BITS)
    return bits.astype(np.float32) * 2 - 1
