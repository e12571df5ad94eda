"""Image files (PNG, JPEG) to stored pixels."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from lapvqa.datasets.pictures import StoredPixels
from lapvqa.images.geometry import fit_image

_EIGHT_BIT_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA"}
_BROKEN = (
    OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow raises for missing, truncated and foreign files (a broken PNG: SyntaxError)."""


def read_image(path: Path) -> StoredPixels | None:
    """Return the image as stored pixels; None if it is missing or not an 8-bit image.

    Colour becomes luma (ITU-R 601-2), transparency is ignored: some NIH files are RGBA.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in _EIGHT_BIT_MODES:
                return None
            # P and LA lose their alpha on the way to L as RGBA does.
            grey = np.asarray(image.convert("L"))
        return StoredPixels(*fit_image(grey))
    except _BROKEN:
        return None
