"""Fit a native image into the stored square, and map boxes between the two.

Coordinates are continuous: pixel i covers [i, i + 1), so a box (x0, y0, x1, y1) has area
(x1 - x0) * (y1 - y0). One scale holds for both axes: stored = native * scale + offset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lapvqa.schemas import CONTENT_SIZE, STORED_SIZE

cv2.setNumThreads(1)  # callers already run one process per core

LANE_END = 1 << 32
"""Longer side times largest value stay below it: the kernels add up columns in 32 bits."""

Pixel = TypeVar("Pixel", np.uint8, np.uint16)
Boxes = NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """Where a native image lies in the stored square; offsets in stored pixels."""

    native_rows: int
    native_cols: int
    scale: float
    offset_x: float
    offset_y: float

    @property
    def content_shape(self) -> tuple[int, int]:
        """Rows and columns of stored pixels that the image fills."""
        return round(self.native_rows * self.scale), round(self.native_cols * self.scale)

    @property
    def content(self) -> tuple[slice, slice]:
        """Where the image lies in the stored square, rows and columns."""
        (height, width), top, left = self.content_shape, int(self.offset_y), int(self.offset_x)
        return slice(top, top + height), slice(left, left + width)

    @property
    def longest(self) -> int:
        """The longer side in native pixels."""
        return max(self.native_rows, self.native_cols)

    def to_stored(self, boxes_xyxy: ArrayLike) -> Boxes:
        """Map boxes [N, 4] from native to stored pixels."""
        return _as_boxes(boxes_xyxy) * self.scale + self._offsets()

    def to_native(self, boxes_xyxy: ArrayLike) -> Boxes:
        """Map boxes [N, 4] from stored to native pixels; not clipped to the image."""
        return (_as_boxes(boxes_xyxy) - self._offsets()) / self.scale

    def _offsets(self) -> Boxes:
        return np.array([self.offset_x, self.offset_y, self.offset_x, self.offset_y])


def _as_boxes(boxes_xyxy: ArrayLike) -> Boxes:
    return np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)


def fit_of(rows: int, cols: int) -> Fit:
    """Return how an image of this size is stored: the longer side 378, the shorter one centred.

    The number of stored rows and columns is rounded, the scale is not: of the far edge of the
    shorter side, less than half a stored pixel is cut or filled up. Raises ValueError for an
    empty image or one over 378 times longer than wide.
    """
    if not rows or not cols or max(rows, cols) > CONTENT_SIZE * min(rows, cols):
        raise ValueError(f"cannot fit an image of {rows} x {cols} pixels")
    scale = CONTENT_SIZE / max(rows, cols)
    height, width = Fit(rows, cols, scale, 0.0, 0.0).content_shape
    top, left = (CONTENT_SIZE - height) // 2, (CONTENT_SIZE - width) // 2
    return Fit(rows, cols, scale, float(left), float(top))


def fit_image(pixels: NDArray[Pixel]) -> tuple[NDArray[Pixel], Fit]:
    """Fit ``pixels`` [rows, cols] into [384, 384] of the same dtype, aspect kept, zero-padded.

    Shrinks by exact area averaging, rounded half up; enlarges bilinearly. Raises ValueError as
    ``fit_of``, and for a side of 65,538 or more of 16-bit pixels.
    """
    fit = fit_of(*pixels.shape)
    if fit.scale >= 1:
        # Given fx and fy instead of a size, cv2 samples at exactly this scale although the number
        # of columns is rounded. With a size, the image would be stretched to it.
        content = cv2.resize(
            pixels, None, fx=fit.scale, fy=fit.scale, interpolation=cv2.INTER_LINEAR
        )
        return framed(content, fit), fit
    # Imported on use: many need a Fit only, and the compiled kernels take a second to load.
    from lapvqa.images.area import clamped_means

    top = int(np.iinfo(pixels.dtype).max)
    require_lanes(fit, largest=top)
    content = np.empty(fit.content_shape, np.uint16)
    cells = np.require(pixels, requirements=["C", "A"])
    whole, zero, unit = np.uint32(top), np.uint32(0), np.uint32(1)
    clamped_means(
        cells, fit.longest, whole, zero, unit, zero, whole, 0.0, 1.0, 1.0, float(top), content
    )
    return framed(content.astype(pixels.dtype, copy=False), fit), fit


def require_lanes(fit: Fit, *, largest: int) -> None:
    """Raise ValueError if an image of values up to ``largest`` is too long for the kernels."""
    if fit.longest * largest >= LANE_END:
        raise ValueError(f"cannot fit an image of {fit.native_rows} x {fit.native_cols} pixels")


def framed(content: NDArray[Pixel], fit: Fit) -> NDArray[Pixel]:
    """Put the content into the stored square, zero around it."""
    stored = np.zeros((STORED_SIZE, STORED_SIZE), dtype=content.dtype)
    stored[fit.content] = content
    return stored
