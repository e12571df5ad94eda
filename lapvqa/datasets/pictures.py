"""A dataset's image file, DICOM or PNG or JPEG, to stored pixels, and how it lies in them.

A picture is rendered as ingest renders an archive's pictures (``lapvqa.dicom.picture``): colour is
the luma of PS3.3 C.7.6.3.1.2, of a JPEG the Y as it is stored; transparency is ignored. So one film
has one stored form whichever way it came, and the digest of its pixels finds it again. Pillow's
conversion to grey, which the probes once used, is a grey apart here and there: it rounds luma
otherwise, and takes a JPEG's Y to RGB and back. On plain grey files the two agree.

What this module imports is the key of the cache of decoded pixels: keep it small.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lapvqa.dicom.reasons import Reason
from lapvqa.errors import DicomError
from lapvqa.images.geometry import Fit


@dataclass(frozen=True)
class StoredPixels:
    """``pixels`` uint8 [384, 384] as ingest stores them; ``fit`` maps native boxes into them."""

    pixels: NDArray[np.uint8]
    fit: Fit
    decoded_sha256: str = ""
    """Of the decoded values (``lapvqa.dicom.pixels.digest``), as images.parquet has it."""


def read_image(path: Path) -> StoredPixels:
    """Read one file whatever its suffix: VinDr-CXR's .dicom are often renamed or converted.

    Raises DicomError with its reason if it is missing or gives no radiograph.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DicomError(Reason.UNREADABLE, f"expected a readable file: {error.strerror}") from None
    # Imported on use: it loads the compiled kernels, which whoever finds all decoded never needs.
    from lapvqa.dicom.picture import read_film

    image = read_film(data)
    return StoredPixels(image.pixels, image.fit, image.decoded_sha256)


def read_or_none(path: Path) -> StoredPixels | None:
    """Read one file as ``read_image`` does; None if it is missing or gives no radiograph."""
    try:
        return read_image(path)
    except DicomError:
        return None
