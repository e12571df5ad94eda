"""One DICOM file's bytes to one stored image: header and pixels from a single read.

``parse`` reads the allowed attributes and finds the pixel data; ``render`` decodes it and shows
it as a screen would.
"""

from __future__ import annotations

import logging
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from lapvqa.data.geometry import Fit, fit_image
from lapvqa.dicom import grayscale
from lapvqa.dicom.header import MONOCHROME, READ_TAGS, Header, read_header, require_radiograph
from lapvqa.dicom.pixels import DECODERS, NATIVE, decoded_cells, native_cells
from lapvqa.dicom.reasons import Reason
from lapvqa.errors import DicomError

MAX_PIXELS = 100_000_000
MIN_SIDE = 64
MAX_ASPECT = 20
_PREAMBLE = 128
_PIXEL_DATA = (0x7FE0, 0x0010)
_UNDEFINED = 0xFFFFFFFF
_SEQUENCE_END = b"\xfe\xff\xdd\xe0"


@dataclass(frozen=True)
class ParsedDicom:
    """A file whose header is read and whose pixel data is found, not yet decoded."""

    header: Header
    dataset: Dataset
    pixel_data: memoryview
    pixel_vr: str


@dataclass(frozen=True)
class DicomImage:
    """One stored image: ``pixels`` uint8 [384, 384], 0 black."""

    pixels: NDArray[np.uint8]
    fit: Fit
    voi: str
    """lut | window | percentile: how intensity was chosen."""
    meta: Header


def read_image(data: bytes) -> DicomImage:
    """Read one file's bytes; raises DicomError with its reason if they give no radiograph."""
    return render(parse(data))


def parse(data: bytes) -> ParsedDicom:
    """Read the header and find the pixel data; raises DicomError."""
    _require_preamble(data)
    stream = BytesIO(data)
    with _quiet(), _as_reason(Reason.BAD_HEADER, "a readable header"):
        dataset = dcmread(stream, stop_before_pixels=True, specific_tags=list(READ_TAGS))
        syntax = UID(dataset.file_meta.get("TransferSyntaxUID", ""))
        if syntax not in NATIVE and syntax not in DECODERS:
            raise DicomError(Reason.UNSUPPORTED_SYNTAX, f"no decoder for {syntax.name[:64]!r}")
        require_radiograph(dataset)
        if syntax != DeflatedExplicitVRLittleEndian:
            # First of all: in a file that is cut, everything else may be missing too.
            vr, pixel_data = _find_pixel_data(data, stream.tell(), syntax)
        header = read_header(dataset, transfer_syntax=str(syntax))
        _require_sizes(dataset)
        if syntax == DeflatedExplicitVRLittleEndian:
            vr, pixel_data = _inflated_pixel_data(data)
    return ParsedDicom(header, dataset, pixel_data, vr)


def render(parsed: ParsedDicom) -> DicomImage:
    """Decode the pixels and show them as a screen would; raises DicomError."""
    header, dataset = parsed.header, parsed.dataset
    with _quiet(), _as_reason(Reason.DECODE_FAILED, "decodable pixel data"):
        if header.transfer_syntax in NATIVE:
            cells, values = native_cells(header, dataset, parsed.pixel_data, vr=parsed.pixel_vr)
        else:
            cells, values = decoded_cells(header, dataset, parsed.pixel_data)
    with _quiet(), _as_reason(Reason.BAD_HEADER, "usable grey transformations"):
        # Of colour only the luma is left, to which the grey transformations do not belong.
        described = dataset if header.photometric in MONOCHROME else Dataset()
        table, voi = grayscale.display_table(described, values, cells)
    grey, fit = fit_image(cv2.LUT(cells, table))
    pixels = ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)
    _require_contrast(pixels, fit)
    return DicomImage(pixels, fit, voi, header)


def _require_preamble(data: bytes) -> None:
    if data[_PREAMBLE : _PREAMBLE + 4] == b"DICM":
        return
    # A data set without preamble begins with an element of group 0002 or 0008, little endian.
    if data[:2] in (b"\x02\x00", b"\x08\x00") and len(data) > _PREAMBLE and data[3] == 0:
        raise DicomError(
            Reason.MISSING_PREAMBLE, "expected DICM at byte 128, found a bare data set"
        )
    raise DicomError(Reason.NOT_DICOM, f"expected DICM at byte 128 of {len(data)}, found none")


def _require_sizes(dataset: Dataset) -> None:
    rows, cols = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    if rows * cols == 0:
        raise DicomError(Reason.NO_PIXEL_DATA, "expected Rows and Columns, found none")
    if rows * cols > MAX_PIXELS:
        raise DicomError(Reason.TOO_LARGE, f"{rows} x {cols} pixels, at most {MAX_PIXELS} are read")
    if min(rows, cols) < max(MIN_SIDE, max(rows, cols) / MAX_ASPECT):
        raise DicomError(Reason.TOO_SMALL, f"{rows} x {cols} pixels, expected {MIN_SIDE} or more")
    allocated, stored = int(dataset.get("BitsAllocated") or 0), int(dataset.get("BitsStored") or 0)
    if allocated not in (8, 16):
        raise DicomError(Reason.UNSUPPORTED_BITS, f"{allocated} bits allocated, expected 8 or 16")
    if not 1 <= stored <= allocated:
        raise DicomError(Reason.BAD_HEADER, f"{stored} bits stored in {allocated} allocated")


def _find_pixel_data(data: bytes, start: int, syntax: UID) -> tuple[str, memoryview]:
    """Return VR and value of Pixel Data, whose element begins at ``start``."""
    order = "<" if syntax.is_little_endian else ">"
    size = 8 if syntax.is_implicit_VR else 12
    element = data[start : start + size]
    if len(element) < size:
        # A header cut within an element leaves the reader beyond the end.
        reason = Reason.NO_PIXEL_DATA if start == len(data) else Reason.TRUNCATED
        raise DicomError(reason, "expected Pixel Data (7FE0,0010), found the end of the file")
    if struct.unpack(order + "HH", element[:4]) != _PIXEL_DATA:
        raise DicomError(Reason.NO_PIXEL_DATA, "expected integer Pixel Data (7FE0,0010)")
    vr = "" if syntax.is_implicit_VR else element[4:6].decode("ascii", "replace")
    (length,) = struct.unpack(order + "I", element[-4:])
    value = memoryview(data)[start + size :]
    if syntax in NATIVE:
        if length == _UNDEFINED:
            raise DicomError(Reason.WRONG_LENGTH, "native pixel data of undefined length")
        return vr, value[:length]
    end = data.rfind(_SEQUENCE_END, start + size)
    if end < 0:
        raise DicomError(Reason.TRUNCATED, "compressed pixel data without its end mark")
    return vr, value[: end - start - size + 8]


def _inflated_pixel_data(data: bytes) -> tuple[str, memoryview]:
    dataset = dcmread(BytesIO(data), specific_tags=["PixelData"])
    if "PixelData" not in dataset:
        raise DicomError(Reason.NO_PIXEL_DATA, "expected Pixel Data (7FE0,0010), found none")
    return str(dataset["PixelData"].VR), memoryview(dataset.PixelData)


def _require_contrast(pixels: NDArray[np.uint8], fit: Fit) -> None:
    top, left = int(fit.offset_y), int(fit.offset_x)
    height, width = round(fit.native_rows * fit.scale), round(fit.native_cols * fit.scale)
    content = pixels[top : top + height, left : left + width]
    if int(content.max()) - int(content.min()) < 2:
        raise DicomError(Reason.CONSTANT_IMAGE, f"one grey everywhere: {int(content.min())} of 255")


@contextmanager
def _as_reason(reason: Reason, expected: str) -> Iterator[None]:
    """Turn whatever a parser or decoder raises into DicomError; only its type is kept.

    Their texts may quote the file, and the file may name a patient.
    """
    try:
        yield
    except (DicomError, MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - a panic of a decoder in Rust is no Exception
        raise DicomError(reason, f"expected {expected}, met {type(error).__name__}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence pydicom's warnings: they may quote values of the header."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
