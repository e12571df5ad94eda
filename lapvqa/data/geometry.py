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

cv2.setNumThreads(1)  # the callers are already one process per core

Pixel = TypeVar("Pixel", np.uint8, np.uint16, np.float32)
Boxes = NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """How a native image lies in the stored one; offsets in stored pixels."""

    native_rows: int
    native_cols: int
    scale: float
    offset_x: float
    offset_y: float

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


def fit_image(pixels: NDArray[Pixel]) -> tuple[NDArray[Pixel], Fit]:
    """Fit ``pixels`` [rows, cols] into [384, 384] of the same dtype, aspect kept, zero-padded.

    Shrinks by area averaging, enlarges bilinearly; the longer side becomes 378, the shorter is
    centred. Raises ValueError for an empty image or one over 378 times longer than wide.
    """
    rows, cols = pixels.shape
    if not rows or not cols or max(rows, cols) > CONTENT_SIZE * min(rows, cols):
        raise ValueError(f"cannot fit an image of {rows} x {cols} pixels")
    scale = CONTENT_SIZE / max(rows, cols)
    # Given fx and fy instead of a size, cv2 samples at exactly this scale although the number of
    # columns is rounded: the mapping of boxes stays exact, and of the far edge of the shorter side
    # less than half a stored pixel is cut. With a size, the image would be stretched to it.
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    content = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=method)
    height, width = content.shape
    top, left = (CONTENT_SIZE - height) // 2, (CONTENT_SIZE - width) // 2
    stored = np.zeros((STORED_SIZE, STORED_SIZE), dtype=pixels.dtype)
    stored[top : top + height, left : left + width] = content
    return stored, Fit(rows, cols, scale, float(left), float(top))
