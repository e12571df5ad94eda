"""Two films to a score: is one an edited copy of the other, or a part of it?

Points of one are found again in the other (SIFT, Lowe, IJCV 2004, as RootSIFT, Arandjelovic and
Zisserman, CVPR 2012), an affine map is fitted to them, and the films are compared where they
overlap. Films of two people have some points in common, but no map under which their ribs coincide.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from lapvqa.firewall.trim import Film, trim

SAME_FILM, EDITED_COPY = 0.9, 0.6
Verdict = Literal["same film", "edited copy or same patient"]

_SIDE, _POINTS = 256, 400
_RATIO = 0.9  # of the distances to the nearest and the second nearest point
_OFF, _MIN_INLIERS = 1.5, 5  # pixels
_LEAST_SCALE, _MOST_SCALE = 0.4, 2.5
_LEAST_OVERLAP = 0.25  # of the smaller film
_TILE = 32  # pixels
_CERTAIN = 0.2  # strangers 0.17 and less, copies 0.24 and more: docs/firewall.md
_FINE, _COARSE, _LOCAL = 1.0, 5.0, 8.0  # pixels: the band, and where its contrast is measured

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Features:
    """What of a film is compared; about 0.5 MB."""

    band: Floats
    """Its details, of equal contrast everywhere: [h, w], the longer side 256."""
    places: Floats
    """Where its points are, x and y: [P, 2]."""
    points: Floats
    """What they look like: RootSIFT, [P, 128]."""


def verdict_of(score: float) -> Verdict | None:
    """Return what a score says of two films; None up to 0.6: nothing."""
    if score > SAME_FILM:
        return "same film"
    return "edited copy or same patient" if score > EDITED_COPY else None


def features(film: Film) -> Features:
    """Return what of a film, uint8 [H, W], ``compare`` looks at; ValueError as ``trim``."""
    picture = np.ascontiguousarray(trim(film))
    scale = _SIDE / max(picture.shape)
    size = [max(1, round(scale * side)) for side in reversed(picture.shape)]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.equalizeHist(cv2.resize(picture, size, interpolation=how))
    keypoints, found = _sift().detectAndCompute(small, None)
    points = np.zeros((0, 128), np.float32) if found is None else found
    points = np.sqrt(points / np.maximum(points.sum(axis=1, keepdims=True), 1e-6))
    places = np.array([one.pt for one in keypoints], np.float32).reshape(-1, 2)
    return Features(_band(small.astype(np.float32)), places, points)


def compare(query: Features, reference: Features) -> float:
    """Return the score of two films in the same orientation, 0 to 1.

    One film is moved onto the other by the map, and the score is the correlation of their details
    in the median tile, so that a few tiles of burnt-in text do not count. It is 0 if there is no
    map, or if too few points agree on it and too few tiles on the film: the ribs of two people can
    be brought near each other, but not everywhere. The better of both polarities: a film matches
    its complement.
    """
    # Where dark and bright change places, SIFT's main direction turns round, and its grid with it.
    complement = query.points.reshape(-1, 4, 4, 8)[:, ::-1, ::-1].reshape(-1, 128)
    return max(_score(query, points, reference) for points in (query.points, complement))


@cache
def _sift() -> Any:
    return cv2.SIFT_create(_POINTS)  # type: ignore[attr-defined]


def _band(film: Floats) -> Floats:
    band = cv2.GaussianBlur(film, (0, 0), _FINE) - cv2.GaussianBlur(film, (0, 0), _COARSE)
    energy = cv2.GaussianBlur(band * band, (0, 0), _LOCAL)
    out: Floats = band / np.sqrt(energy + 0.05 * energy.mean() + 1e-6)
    return out


def _score(query: Features, points: Floats, reference: Features) -> float:
    pairs = _pairs(points, reference.points)
    if len(pairs) < _MIN_INLIERS:
        return 0.0
    cv2.setRNGSeed(0)
    affine, inliers = cv2.estimateAffine2D(
        query.places[pairs[:, 0]], reference.places[pairs[:, 1]],
        method=cv2.RANSAC, ransacReprojThreshold=_OFF, confidence=0.999,
    )  # fmt: skip
    agreeing = 0 if affine is None else int(inliers.sum())
    if agreeing < _MIN_INLIERS or not _plausible(affine[:, :2]):
        return 0.0
    likeness = _likeness(query.band, reference.band, affine)
    if not len(likeness):
        return 0.0
    middle, low = np.quantile(likeness, [0.5, 0.3])
    again = agreeing / min(len(points), len(reference.points))
    certain = middle * max(low, 0) * agreeing / len(pairs) * np.sqrt(again) > _CERTAIN
    return float(min(1, middle)) if certain else 0.0


def _pairs(ours: Floats, theirs: Floats) -> NDArray[np.intp]:
    """Return rows of points that are each other's nearest, and clearly so: [n, 2]."""
    if len(ours) < 2 or len(theirs) < 2:
        return np.zeros((0, 2), np.intp)
    likeness = ours @ theirs.T
    rows, nearest = np.arange(len(ours)), likeness.argmax(axis=1)
    best = likeness[rows, nearest]
    mutual = likeness.argmax(axis=0)[nearest] == rows
    likeness[rows, nearest] = -1
    clear = 1 - best < _RATIO**2 * (1 - likeness.max(axis=1))  # squared distance: 2 - 2 likeness
    chosen = mutual & clear
    return np.stack([rows[chosen], nearest[chosen]], axis=1)


def _plausible(linear: Doubles) -> bool:
    most, least = np.linalg.svd(linear, compute_uv=False)
    return bool(np.linalg.det(linear) > 0 and least > _LEAST_SCALE and most < _MOST_SCALE)


def _likeness(query: Floats, reference: Floats, affine: Doubles) -> Doubles:
    """Return the correlation of each tile where the moved query covers the reference: [T].

    A complement correlates negatively everywhere; the sign that most have is taken away.
    """
    rows, columns = (side // _TILE * _TILE for side in reference.shape)
    if not rows or not columns:  # a film eight times as long as wide
        return np.zeros(0)
    moved = cv2.warpAffine(query, affine, (columns, rows), flags=cv2.INTER_LINEAR)
    whole = np.ones_like(query, np.uint8)
    inside = cv2.warpAffine(whole, affine, (columns, rows), flags=cv2.INTER_NEAREST)
    inside = cv2.erode(inside, np.ones((5, 5), np.uint8), borderValue=0).astype(np.float32)
    if inside.sum() < _LEAST_OVERLAP * min(query.size, reference.size):
        return np.zeros(0)
    ours, theirs = moved * inside, reference[:rows, :columns] * inside
    share = np.maximum(_means(inside), 1e-6)

    def product(one: Floats, other: Floats) -> Doubles:
        return _means(one * other) - _means(one) * _means(other) / share

    norm = np.maximum(product(ours, ours) * product(theirs, theirs), 1e-12)
    tiles: Doubles = (product(ours, theirs) / np.sqrt(norm))[share > 0.5]
    return tiles if tiles.sum() >= 0 else -tiles


def _means(film: Floats) -> Doubles:
    """Return the mean of each tile."""
    rows, columns = (side // _TILE for side in film.shape)
    tiles = film.reshape(rows, _TILE, columns, _TILE)
    return np.asarray(tiles.mean(axis=(1, 3), dtype=np.float64))
