"""Compressed pixel data looked at without decoding it: its items, and what its frame claims.

A frame that claims another size than the header is turned away before a decoder reserves memory
for it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pydicom import uid as uids

from lapvqa.dicom.reasons import Reason
from lapvqa.errors import DicomError

_ITEM, _SEQUENCE_END = 0xE000FFFE, 0xE0DDFFFE
_UNDEFINED = 0xFFFFFFFF
_JPEG_LS_SOF = 0xF7
# Start of frame of every JPEG process; C4, C8 and CC are other markers (ITU-T T.81 B.1.1.3).
_SOF = frozenset({*range(0xC0, 0xD0), _JPEG_LS_SOF}) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset({0x01, 0xFF, *range(0xD0, 0xD8)})
_SIZ = b"\xff\x4f\xff\x51"
_SIZ_WITHIN = 4096
_JPEG = frozenset(
    {
        uids.JPEGBaseline8Bit, uids.JPEGExtended12Bit, uids.JPEGLossless, uids.JPEGLosslessSV1,
        uids.JPEGLSLossless, uids.JPEGLSNearLossless,
    }
)  # fmt: skip


@dataclass(frozen=True)
class FrameSize:
    """What a compressed frame says of itself; None where its format does not say it."""

    rows: int | None
    cols: int | None
    planes: int


def whole_items(value: memoryview) -> tuple[memoryview, memoryview]:
    """Return the encapsulated items up to their end mark, and the first fragment (PS3.5 A.4).

    Raises DicomError if they are cut, empty or no items.
    """
    place, number, first = 0, 0, value[:0]
    while len(value) - place >= 8:
        tag, length = struct.unpack_from("<II", value, place)
        place += 8
        if tag == _SEQUENCE_END:
            if number < 2:  # the first item is the table of offsets
                raise DicomError(Reason.NO_PIXEL_DATA, "expected a compressed frame, found none")
            return value[:place], first
        if tag != _ITEM or length == _UNDEFINED:
            raise DicomError(Reason.WRONG_LENGTH, "expected compressed pixel data in items")
        if number == 1:
            first = value[place : place + length]
        place, number = place + length, number + 1
    raise DicomError(Reason.TRUNCATED, "compressed pixel data without its end mark")


def require_frame_size(
    syntax: str, fragment: memoryview, *, rows: int, cols: int, samples: int, allocated: int
) -> None:
    """Raise DicomError if the frame that begins with ``fragment`` claims another size."""
    if syntax == uids.RLELossless:
        found, samples = _rle_size(fragment), samples * allocated // 8
    else:
        found = _jpeg_size(fragment) if syntax in _JPEG else _jpeg2000_size(fragment)
    if found is None:  # damaged, or unusual: the decoder will tell
        return
    if (found.rows or rows, found.cols or cols, found.planes) != (rows, cols, samples):
        raise DicomError(
            Reason.WRONG_LENGTH,
            f"header of {rows} x {cols} x {samples}, compressed frame of "
            f"{found.rows or rows} x {found.cols or cols} x {found.planes}",
        )


def _jpeg_size(fragment: memoryview) -> FrameSize | None:
    """Read the frame header of JPEG (T.81 B.2.2) or JPEG-LS (T.87 C.2.2)."""
    place = 2
    while place + 4 <= len(fragment) and fragment[place] == 0xFF:
        marker = fragment[place + 1]
        if marker in _STANDALONE:
            place += 1 if marker == 0xFF else 2
        elif marker in _SOF:
            if place + 10 > len(fragment):
                return None
            rows, cols, planes = struct.unpack_from(">HHB", fragment, place + 5)
            return FrameSize(rows or None, cols or None, planes)
        else:
            place += 2 + int.from_bytes(fragment[place + 2 : place + 4], "big")
    return None


def _jpeg2000_size(fragment: memoryview) -> FrameSize | None:
    """Read the SIZ marker of JPEG 2000 (T.800 A.5.1), within a JP2 file or bare."""
    head = bytes(fragment[:_SIZ_WITHIN])
    place = head.find(_SIZ)
    if place < 0 or len(head) < place + 42:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", head, place + 8)
    (planes,) = struct.unpack_from(">H", head, place + 40)
    return FrameSize(bottom - top, right - left, planes)


def _rle_size(fragment: memoryview) -> FrameSize | None:
    """Read the number of segments: one for each byte of a pixel (PS3.5 G.5)."""
    if len(fragment) < 64:
        return None
    return FrameSize(None, None, int.from_bytes(fragment[:4], "little"))
