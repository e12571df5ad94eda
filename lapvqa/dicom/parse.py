"""The first half of reading a file: its bytes to a header and the place of its pixel data."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BytesIO

from pydicom import Dataset, dcmread
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from lapvqa.dicom.faults import as_reason, quiet
from lapvqa.dicom.header import READ_TAGS, Header, read_header, require_radiograph
from lapvqa.dicom.pixels import DECODERS, NATIVE
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


def parse(data: bytes) -> ParsedDicom:
    """Read the header and find the pixel data; raises DicomError."""
    _require_preamble(data)
    stream = BytesIO(data)
    with quiet(), as_reason(Reason.BAD_HEADER, "a readable header"):
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
