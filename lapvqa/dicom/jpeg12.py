"""JPEG Extended of 12 bits (process 4), which pydicom gives to no decoder it knows.

gdcm decodes it, and exactly as dcmtk does (tested), although pydicom declines to ask it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_BITS = 12


def is_available() -> bool:
    """Say whether the decoder is installed."""
    try:
        import gdcm  # noqa: F401
    except ImportError:
        return False
    return True


def decode(frame: bytes, *, rows: int, cols: int) -> NDArray[np.uint16]:
    """Decode one grey frame of 12 bits a sample; raises ValueError if gdcm cannot."""
    import gdcm

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((cols, rows, 1))
    image.SetDataElement(element)
    grey = gdcm.PhotometricInterpretation.MONOCHROME2
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(grey))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    # 12 bits allocated, although cells have 16: with 16, gdcm tries a decoder of 16 bits first,
    # which writes its complaint to the process's error stream before the right one takes over.
    image.SetPixelFormat(gdcm.PixelFormat(1, _BITS, _BITS, _BITS - 1, 0))
    decoded: Any = image.GetBuffer()  # bytes as text, or None
    if decoded is None:
        raise ValueError("gdcm could not decode a 12-bit JPEG")
    cells = np.frombuffer(decoded.encode("utf-8", "surrogateescape"), "<u2")
    return cells.reshape(rows, cols).astype(np.uint16, copy=False)
