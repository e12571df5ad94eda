"""One file's bytes to one stored image: header and pixels from a single read.

``parse`` reads the allowed attributes and finds the pixel data; ``render`` decodes it and shows
it as a screen would; ``picture`` does both for archives of PNG and JPEG files.
"""

from __future__ import annotations

from lapvqa.dicom.parse import ParsedDicom, parse
from lapvqa.dicom.render import DicomImage, render

__all__ = ["DicomImage", "ParsedDicom", "parse", "read_image", "render"]


def read_image(data: bytes) -> DicomImage:
    """Read one DICOM file's bytes; raises DicomError with its reason if they give no radiograph."""
    return render(parse(data))
