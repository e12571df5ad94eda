"""A dataset's image file, DICOM or PNG or JPEG, to stored pixels, and how it lies in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lapvqa.dicom.picture import read_picture
from lapvqa.dicom.reasons import Reason
from lapvqa.dicom.render import read_image as read_dicom
from lapvqa.errors import DicomError
from lapvqa.images.geometry import Fit

_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


@dataclass(frozen=True)
class StoredPixels:
    """``pixels`` uint8 [384, 384] as ingest stores them; ``fit`` maps native boxes into them."""

    pixels: NDArray[np.uint8]
    fit: Fit


def read_image(path: Path) -> StoredPixels:
    """Read one file whatever its suffix: VinDr-CXR's .dicom are often renamed or converted.

    Raises DicomError with its reason if it is missing or gives no radiograph.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DicomError(Reason.UNREADABLE, f"expected a readable file: {error.strerror}") from None
    image = read_picture(data) if data.startswith(_PICTURES) else read_dicom(data)
    return StoredPixels(image.pixels, image.fit)
