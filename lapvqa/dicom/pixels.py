"""Decode pixel data to cells [rows, cols], and how values lie in them (``Coding``).

Native pixels are used where they lie in the bytes; compressed ones go to exactly one decoder per
transfer syntax, so that the same file gives the same pixels everywhere.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom import uid as uids
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder

from lapvqa.dicom.header import MONOCHROME, Header
from lapvqa.dicom.reasons import Reason
from lapvqa.errors import DicomError

Values = NDArray[np.float64]
Cells = NDArray[np.uint8] | NDArray[np.uint16]

NATIVE = frozenset(
    {
        uids.ImplicitVRLittleEndian,
        uids.ExplicitVRLittleEndian,
        uids.DeflatedExplicitVRLittleEndian,
        uids.ExplicitVRBigEndian,
    }
)
# One decoder each: the lossless ones are exact, and all fail at once on a cut stream (tested).
# Not pyjpegls, but for 6 and 7 bits (_plugin): it searches a cut stream for 5 to 13 s. Not
# pylibjpeg for RLE: it panics.
DECODERS: dict[uids.UID, str] = {
    uids.JPEGBaseline8Bit: "pillow",
    uids.JPEGExtended12Bit: "pillow",  # of 8 bits; for 12 bits see _decode_jpeg12
    uids.JPEGLossless: "gdcm",
    uids.JPEGLosslessSV1: "gdcm",
    uids.JPEGLSLossless: "gdcm",
    uids.JPEGLSNearLossless: "gdcm",
    uids.JPEG2000Lossless: "pylibjpeg",
    uids.JPEG2000: "pylibjpeg",
    uids.HTJ2KLossless: "pylibjpeg",
    uids.HTJ2KLosslessRPCL: "pylibjpeg",
    uids.HTJ2K: "pylibjpeg",
    uids.RLELossless: "pydicom",
}
_JPEG_LS = frozenset({uids.JPEGLSLossless, uids.JPEGLSNearLossless})
_JPEG_END = b"\xff\xd9"
_LOSSLESS = frozenset(
    {
        uids.JPEGLossless, uids.JPEGLosslessSV1, uids.JPEGLSLossless, uids.JPEG2000Lossless,
        uids.HTJ2KLossless, uids.HTJ2KLosslessRPCL, uids.RLELossless,
    }
)  # fmt: skip


@dataclass(frozen=True)
class Coding:
    """Where the ``bits`` of a value lie in its cell (PS3.5 8.1.1), and whether they are signed.

    ((cell & mask) ^ flip) >> down is the value's rank: 0 for the lowest value, in their order.
    Bits outside the mask may hold an overlay, as old files have it; they are no part of the value.
    """

    bits: int
    signed: bool = False
    down: int = 0
    """Bits below the value: High Bit + 1 - Bits Stored."""

    @property
    def mask(self) -> int:
        """The bits that make the value."""
        return self.count - 1 << self.down

    @property
    def flip(self) -> int:
        """The sign bit: flipped, negative values come before the others."""
        return (self.count >> 1 << self.down) if self.signed else 0

    @property
    def count(self) -> int:
        """How many values there are."""
        return 1 << self.bits

    @property
    def lowest(self) -> int:
        """The value of rank 0."""
        return -(self.count >> 1) if self.signed else 0

    def values(self) -> Values:
        """Return every possible value in ascending order, so that a rank is its index."""
        return np.arange(self.lowest, self.lowest + self.count, dtype=np.float64)

    def ranks(self, cells: Cells) -> NDArray[np.uint16]:
        """Return the rank of each cell's value, of the same shape."""
        ranks = ((cells.astype(np.int32) & self.mask) ^ self.flip) >> self.down
        return ranks.astype(np.uint16)


def digest(cells: Cells, coding: Coding) -> str:
    """Return the sha256 of an image's size and values, however cells and bits held them.

    Values as 16 bits, low byte first; their sign counts where one is negative. So the digest is
    that of every lossless form of the image: packed, decompressed, in larger cells, with or
    without an overlay in the spare bits.
    """
    values = cells & cells.dtype.type(coding.mask)
    values ^= values.dtype.type(coding.flip)
    values >>= values.dtype.type(coding.down)
    words = values.astype("<u2", copy=False)
    negative = False
    if coding.signed:
        words += np.uint16(coding.lowest % (1 << 16))
        negative = bool((words >> 15).any())
    size = f"{cells.shape[0]} {cells.shape[1]} {'signed' if negative else 'unsigned'}\n"
    state = hashlib.sha256(size.encode())
    state.update(words.data)
    return state.hexdigest()


def read_cells(
    header: Header, dataset: Dataset, data: memoryview, *, vr: str
) -> tuple[Cells, Coding]:
    """Return cells [rows, cols] and their coding; colour is reduced to its luma.

    ``vr`` is Pixel Data's, empty under implicit VR. Raises DicomError if the length is wrong or no
    decoder is installed, and whatever the decoder raises.
    """
    if header.transfer_syntax in NATIVE:
        return _native_cells(header, dataset, data, vr=vr)
    return _decoded_cells(header, dataset, data)


def _native_cells(
    header: Header, dataset: Dataset, data: memoryview, *, vr: str
) -> tuple[Cells, Coding]:
    """Return the cells as they lie in ``data``."""
    if header.photometric not in MONOCHROME:
        return luma(_native_colour(header, dataset, data, vr=vr)), Coding(8)
    allocated = int(dataset.BitsAllocated)
    shape = (int(dataset.Rows), int(dataset.Columns))
    exact = _exactly(data, shape[0] * shape[1] * allocated // 8)
    little = uids.UID(header.transfer_syntax).is_little_endian
    cells: Cells
    if allocated == 16:
        words = np.frombuffer(exact, "<u2" if little else ">u2")
        # Aligned: an odd length somewhere in the header shifts all that follows.
        cells = np.require(words, np.uint16, "A")
    else:
        cells = _bytes(header, data, len(exact), vr=vr)
    return cells.reshape(shape), _coding(dataset)


def _decoded_cells(header: Header, dataset: Dataset, data: memoryview) -> tuple[Cells, Coding]:
    """Decompress the encapsulated ``data``.

    RLE packs cells as they are; the other formats hold values, and their decoders extend the sign.
    """
    syntax = uids.UID(header.transfer_syntax)
    if syntax == uids.JPEGExtended12Bit and header.bits_stored > 8:
        return _jpeg12_cells(dataset, data)
    decoder, plugin = get_decoder(syntax), _plugin(syntax, dataset, data)
    if plugin not in decoder.available_plugins:
        raise _missing(syntax)
    is_rle = syntax == uids.RLELossless
    if header.photometric in MONOCHROME and _coding(dataset).down and not is_rle:
        # Some encoders write the value here, some the whole cell: both would be a guess.
        raise DicomError(
            Reason.UNSUPPORTED_BITS,
            f"high bit {dataset.HighBit} for {dataset.BitsStored} bits stored in {syntax.name}",
        )
    options: dict[str, Any] = {
        "rows": int(dataset.Rows),
        "columns": int(dataset.Columns),
        "number_of_frames": 1,
        "samples_per_pixel": int(dataset.get("SamplesPerPixel", 1)),
        "photometric_interpretation": header.photometric,
        "pixel_representation": int(_is_signed(dataset)),
        "bits_allocated": int(dataset.BitsAllocated),
        # The bits of RLE's cells are taken apart here: pydicom does not look at High Bit.
        "bits_stored": int(dataset.BitsAllocated if is_rle else dataset.BitsStored),
        "planar_configuration": int(dataset.get("PlanarConfiguration") or 0),
        "pixel_keyword": "PixelData",
    }
    pixels, facts = decoder.as_array(
        data.tobytes(), raw=True, index=0, decoding_plugin=plugin, **options
    )
    if header.photometric not in MONOCHROME:
        is_rgb = facts["photometric_interpretation"] == "RGB"
        return luma(pixels) if is_rgb else _first_channel(pixels), Coding(8)
    bits, signed = pixels.dtype.itemsize * 8, pixels.dtype.kind == "i"
    whole = np.ascontiguousarray(pixels)
    cells: Cells = whole.view(np.uint8) if bits == 8 else whole.view(np.uint16)
    if syntax not in _LOSSLESS:  # values a little beyond Bits Stored must not wrap around
        return cells, Coding(bits, signed=signed)
    return cells, _coding(dataset)


def _plugin(syntax: uids.UID, dataset: Dataset, data: memoryview) -> str:
    """Return the decoder of the syntax; gdcm's CharLS cannot do JPEG-LS of 6 or 7 bits."""
    if syntax not in _JPEG_LS or dataset.BitsStored not in (6, 7):
        return DECODERS[syntax]
    if _JPEG_END not in bytes(data[-64:]):  # it would search a cut stream for seconds
        raise DicomError(Reason.DECODE_FAILED, "expected a whole JPEG-LS stream, found no end mark")
    return "pyjpegls"


def _jpeg12_cells(dataset: Dataset, data: memoryview) -> tuple[Cells, Coding]:
    if find_spec("gdcm") is None:
        raise _missing(uids.JPEGExtended12Bit)
    if int(dataset.get("SamplesPerPixel") or 1) != 1:
        raise DicomError(Reason.UNSUPPORTED_PHOTOMETRIC, "colour of 12 bits, expected 3 x 8 bits")
    frame = get_frame(data.tobytes(), 0, number_of_frames=1)
    cells = _decode_jpeg12(frame, rows=int(dataset.Rows), cols=int(dataset.Columns))
    if _is_signed(dataset):
        return cells, Coding(int(dataset.BitsStored), signed=True)
    return cells, Coding(16)  # a lossy value may exceed BitsStored


def _decode_jpeg12(frame: bytes, *, rows: int, cols: int) -> NDArray[np.uint16]:
    """Decode a grey frame of 12-bit JPEG (process 4), which pydicom passes to none of its decoders.

    gdcm decodes it, and exactly as dcmtk does (tested). Raises ValueError if it cannot.
    """
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
    image.SetPixelFormat(gdcm.PixelFormat(1, 12, 12, 11, 0))
    decoded: Any = image.GetBuffer()  # bytes as text, or None
    if decoded is None:
        raise ValueError("gdcm could not decode a 12-bit JPEG")
    cells = np.frombuffer(decoded.encode("utf-8", "surrogateescape"), "<u2")
    return cells.reshape(rows, cols).astype(np.uint16, copy=False)


def _missing(syntax: uids.UID) -> DicomError:
    return DicomError(Reason.DECODER_MISSING, f"no installed decoder for {syntax.name}")


def _native_colour(
    header: Header, dataset: Dataset, data: memoryview, *, vr: str
) -> NDArray[np.uint8]:
    if header.photometric != "RGB" or dataset.BitsAllocated != 8:
        raise DicomError(
            Reason.UNSUPPORTED_PHOTOMETRIC,
            f"uncompressed {header.photometric} of {dataset.BitsAllocated} bits",
        )
    rows, cols = int(dataset.Rows), int(dataset.Columns)
    flat = _bytes(header, data, len(_exactly(data, rows * cols * 3)), vr=vr)
    if int(dataset.get("PlanarConfiguration") or 0) == 1:
        return np.moveaxis(flat.reshape(3, rows, cols), 0, -1)
    return flat.reshape(rows, cols, 3)


def luma(rgb: NDArray[Any]) -> NDArray[np.uint8]:
    """Return .299 R + .587 G + .114 B, the Y of YBR_FULL (PS3.3 C.7.6.3.1.2); 8 bits only."""
    grey: NDArray[np.uint8] = cv2.cvtColor(_colour(rgb), cv2.COLOR_RGB2GRAY)
    return grey


def _first_channel(ybr: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(_colour(ybr)[..., 0])


def _colour(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if pixels.ndim != 3 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8:
        raise DicomError(
            Reason.UNSUPPORTED_PHOTOMETRIC, f"colour of {pixels.dtype}, expected 3 x 8 bits"
        )
    return np.ascontiguousarray(pixels)


def _coding(dataset: Dataset) -> Coding:
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    high_bit = int(dataset.get("HighBit", stored - 1))
    if not stored - 1 <= high_bit < allocated:
        raise DicomError(Reason.BAD_HEADER, f"high bit {high_bit} for {stored} bits stored")
    return Coding(stored, signed=_is_signed(dataset), down=high_bit + 1 - stored)


def _is_signed(dataset: Dataset) -> bool:
    return int(dataset.get("PixelRepresentation") or 0) == 1


def _exactly(data: memoryview, expected: int) -> memoryview:
    if len(data) < expected:
        raise DicomError(
            Reason.TRUNCATED, f"expected {expected} bytes of pixels, found {len(data)}"
        )
    if len(data) > expected + expected % 2:  # values are padded to an even length
        raise DicomError(
            Reason.WRONG_LENGTH, f"expected {expected} bytes of pixels, found {len(data)}"
        )
    return data[:expected]


def _bytes(header: Header, data: memoryview, count: int, *, vr: str) -> NDArray[np.uint8]:
    """Return the first ``count`` cells of 8 bits.

    Written as OW they are words: in big endian each pair is swapped (PS3.5 8.1.1, annex A.3).
    """
    if uids.UID(header.transfer_syntax).is_little_endian or vr != "OW":
        return np.frombuffer(data[:count], np.uint8)
    if len(data) % 2:
        raise DicomError(Reason.WRONG_LENGTH, f"words of 16 bits in {len(data)} bytes")
    return np.frombuffer(data, ">u2").astype("<u2").view(np.uint8)[:count]
