"""The first half of reading a file: its bytes to a header and the place of its pixel data.

No size in the file is trusted: sizes are checked before pixels are touched, a deflated file is
inflated only as far as its header needs, and a compressed frame that claims another size than the
header is rejected before a decoder reserves memory for it.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO

from pydicom import Dataset
from pydicom import uid as uids
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag

from lapvqa.dicom.header import MONOCHROME, READ_TAGS, Header, read_header, require_radiograph
from lapvqa.dicom.pixels import DECODERS, NATIVE
from lapvqa.dicom.reasons import Reason, as_reason, quiet
from lapvqa.errors import DicomError

MAX_PIXELS = 100_000_000
MIN_SIDE = 64
MAX_ASPECT = 20
_MAX_PIXEL_BYTES = 4 * MAX_PIXELS
_MAX_INFLATED_HEADER = 16 << 20
_MAX_INFLATED_REST = 1 << 20
_PREAMBLE = 128
_PIXEL_DATA = 0x7FE00010
_FLOAT_PIXELS = (0x7FE00008, 0x7FE00009)
_PIXEL_VRS = frozenset({"OB", "OW", "UN"})
_VOI_FUNCTIONS = frozenset({"LINEAR", "LINEAR_EXACT", "SIGMOID"})
_UNDEFINED = 0xFFFFFFFF
_READ_TAGS: list[BaseTag | int] = list(READ_TAGS)
_ITEM, _SEQUENCE_END = 0xE000FFFE, 0xE0DDFFFE
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
class ParsedDicom:
    """A file whose header is read and whose pixel data is found, not yet decoded."""

    header: Header
    dataset: Dataset
    pixel_data: memoryview
    pixel_vr: str


@dataclass(frozen=True)
class _Element:
    """Pixel Data's VR (empty under implicit VR), announced length, and where its value begins."""

    vr: str
    length: int
    start: int


@dataclass(frozen=True)
class _FrameSize:
    """Size that a compressed frame states; None where its format does not state it."""

    rows: int | None
    cols: int | None
    planes: int


def parse(data: bytes) -> ParsedDicom:
    """Read the header and find the pixel data; raises DicomError."""
    _require_preamble(data)
    with quiet(), as_reason(Reason.BAD_HEADER, "a readable header"):
        syntax, start = _file_meta(data)
        if syntax not in NATIVE and syntax not in DECODERS:
            raise DicomError(Reason.UNSUPPORTED_SYNTAX, f"no decoder for {syntax.name[:64]!r}")
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        if syntax == uids.DeflatedExplicitVRLittleEndian:
            data, start = inflater.decompress(data[start:], _MAX_INFLATED_HEADER), 0
        stream = BytesIO(data)
        stream.seek(start)
        dataset = read_dataset(
            stream,
            syntax.is_implicit_VR,
            syntax.is_little_endian,
            stop_when=_at_pixel_data,
            specific_tags=_READ_TAGS,
        )
        require_radiograph(dataset)
        # Before all else: in a file that is cut, everything else may be missing too.
        element = _pixel_element(data, stream.tell(), dataset, inflater)
        pixel_data = memoryview(data)[element.start :]
        if syntax in DECODERS:
            pixel_data, fragment = _whole_items(pixel_data)
            if element.length not in (_UNDEFINED, len(pixel_data)):
                raise DicomError(Reason.WRONG_LENGTH, "compressed pixel data of another length")
        elif element.length == _UNDEFINED:
            raise DicomError(Reason.WRONG_LENGTH, "native pixel data of undefined length")
        header = read_header(dataset, transfer_syntax=str(syntax))
        rows, cols, allocated = _checked_sizes(dataset)
        samples = _checked_meaning(dataset)
        if syntax in DECODERS:
            _require_frame_size(
                syntax, fragment, rows=rows, cols=cols, samples=samples, allocated=allocated
            )
        elif syntax == uids.DeflatedExplicitVRLittleEndian:
            pixel_data = _inflated(pixel_data, element.length, inflater)
        else:
            pixel_data = pixel_data[: element.length]
    return ParsedDicom(header, dataset, pixel_data, element.vr)


def _require_preamble(data: bytes) -> None:
    if data[_PREAMBLE : _PREAMBLE + 4] == b"DICM":
        return
    # A data set without preamble begins with an element of group 0002 or 0008, little endian.
    if data[:2] in (b"\x02\x00", b"\x08\x00") and len(data) > _PREAMBLE and data[3] == 0:
        raise DicomError(
            Reason.MISSING_PREAMBLE, "expected DICM at byte 128, found a bare data set"
        )
    raise DicomError(Reason.NOT_DICOM, f"expected DICM at byte 128 of {len(data)}, found none")


def _file_meta(data: bytes) -> tuple[uids.UID, int]:
    """Return the transfer syntax and where the data set begins (PS3.10 7.1)."""
    stream = BytesIO(data)
    stream.seek(_PREAMBLE + 4)
    meta = read_dataset(
        stream, is_implicit_VR=False, is_little_endian=True, stop_when=_beyond_file_meta
    )
    return uids.UID(str(meta.get("TransferSyntaxUID", ""))), stream.tell()


def _beyond_file_meta(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag >> 16 != 2


def _at_pixel_data(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag == _PIXEL_DATA or tag in _FLOAT_PIXELS


def _checked_sizes(dataset: Dataset) -> tuple[int, int, int]:
    """Return Rows, Columns and Bits Allocated; raises DicomError if they are not usable."""
    rows, cols = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    if rows * cols == 0:
        raise DicomError(Reason.NO_PIXEL_DATA, "expected Rows and Columns, found none")
    require_size(rows, cols)
    allocated, stored = int(dataset.get("BitsAllocated") or 0), int(dataset.get("BitsStored") or 0)
    if allocated not in (8, 16):
        raise DicomError(Reason.UNSUPPORTED_BITS, f"{allocated} bits allocated, expected 8 or 16")
    if not 1 <= stored <= allocated:
        raise DicomError(Reason.BAD_HEADER, f"{stored} bits stored in {allocated} allocated")
    return rows, cols, allocated


def _checked_meaning(dataset: Dataset) -> int:
    """Return Samples per Pixel; raises DicomError if what a pixel means would be a guess."""
    is_grey = dataset.PhotometricInterpretation.strip().upper() in MONOCHROME
    expected = {"SamplesPerPixel": (1 if is_grey else 3,), "PixelRepresentation": (0, 1)}
    if not is_grey:
        expected["PlanarConfiguration"] = (0, 1)
    for name, allowed in expected.items():  # all of type 1 here (PS3.3 C.7.6.3)
        if dataset.get(name) not in allowed:
            raise DicomError(Reason.BAD_HEADER, f"expected {name} {' or '.join(map(str, allowed))}")
    rescale = [dataset.get(name) for name in ("RescaleSlope", "RescaleIntercept")]
    if sum(value is None or value == "" for value in rescale) == 1:
        raise DicomError(Reason.BAD_HEADER, "expected Rescale Slope and Intercept, found one")
    if str(dataset.get("VOILUTFunction") or "LINEAR").strip(" \0").upper() not in _VOI_FUNCTIONS:
        raise DicomError(Reason.BAD_HEADER, "expected VOI LUT Function LINEAR, found another")
    return expected["SamplesPerPixel"][0]


def require_size(rows: int, cols: int) -> None:
    """Raise DicomError if an image of this size is not read: too large, too small, too narrow."""
    if rows * cols > MAX_PIXELS:
        raise DicomError(Reason.TOO_LARGE, f"{rows} x {cols} pixels, at most {MAX_PIXELS} are read")
    if min(rows, cols) < max(MIN_SIDE, max(rows, cols) / MAX_ASPECT):
        raise DicomError(Reason.TOO_SMALL, f"{rows} x {cols} pixels, expected {MIN_SIDE} or more")


def _pixel_element(
    data: bytes, place: int, dataset: Dataset, inflater: zlib._Decompress
) -> _Element:
    """Read the head of Pixel Data, which begins at ``place``; raises DicomError."""
    # As the data set was read: some say explicit VR in their file meta, and write implicit.
    is_implicit, is_little = dataset.original_encoding
    order = "<" if is_little else ">"
    size = 8 if is_implicit else 12
    element = data[place : place + size]
    if len(element) < size:
        if inflater.unconsumed_tail:
            raise DicomError(Reason.TOO_LARGE, f"header of {len(data)} bytes or more, inflated")
        # A header cut within an element leaves the reader beyond the end.
        reason = Reason.NO_PIXEL_DATA if place == len(data) else Reason.TRUNCATED
        raise DicomError(reason, "expected Pixel Data (7FE0,0010), found the end of the file")
    group, number = struct.unpack(order + "HH", element[:4])
    if group << 16 | number != _PIXEL_DATA:
        raise DicomError(Reason.NO_PIXEL_DATA, "expected integer Pixel Data (7FE0,0010)")
    vr = "" if is_implicit else element[4:6].decode("ascii", "replace")
    if vr and vr not in _PIXEL_VRS:
        raise DicomError(Reason.BAD_HEADER, "expected Pixel Data of VR OB or OW, found another")
    (length,) = struct.unpack(order + "I", element[-4:])
    return _Element(vr, length, place + size)


def _inflated(begun: memoryview, length: int, inflater: zlib._Decompress) -> memoryview:
    """Return ``length`` bytes of pixel data, of which those ``begun`` are inflated already."""
    if length > _MAX_PIXEL_BYTES:
        raise DicomError(Reason.TOO_LARGE, f"{length} bytes of pixels announced in a deflated file")
    missing = length - len(begun)
    pixels = bytes(begun[:length])
    if missing > 0:
        pixels += inflater.decompress(inflater.unconsumed_tail, missing)
    inflater.decompress(inflater.unconsumed_tail, _MAX_INFLATED_REST)  # what stands behind them
    if not inflater.eof:
        reason = Reason.TOO_LARGE if inflater.unconsumed_tail else Reason.TRUNCATED
        raise DicomError(reason, "expected the end of the deflated data behind the pixels")
    return memoryview(pixels)


def _whole_items(value: memoryview) -> tuple[memoryview, memoryview]:
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


def _require_frame_size(
    syntax: str, fragment: memoryview, *, rows: int, cols: int, samples: int, allocated: int
) -> None:
    """Raise DicomError if the frame that begins with ``fragment`` claims another size."""
    if syntax == uids.RLELossless:
        frame, samples = _rle_size(fragment), samples * allocated // 8
    else:
        frame = _jpeg_size(fragment) if syntax in _JPEG else _jpeg2000_size(fragment)
    if frame is None:  # damaged, or unusual: the decoder will tell
        return
    if (frame.rows or rows, frame.cols or cols, frame.planes) != (rows, cols, samples):
        raise DicomError(
            Reason.WRONG_LENGTH,
            f"header of {rows} x {cols} x {samples}, compressed frame of "
            f"{frame.rows or rows} x {frame.cols or cols} x {frame.planes}",
        )


def _jpeg_size(fragment: memoryview) -> _FrameSize | None:
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
            return _FrameSize(rows or None, cols or None, planes)
        else:
            place += 2 + int.from_bytes(fragment[place + 2 : place + 4], "big")
    return None


def _jpeg2000_size(fragment: memoryview) -> _FrameSize | None:
    """Read the SIZ marker of JPEG 2000 (T.800 A.5.1), within a JP2 file or bare."""
    head = bytes(fragment[:_SIZ_WITHIN])
    place = head.find(_SIZ)
    if place < 0 or len(head) < place + 42:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", head, place + 8)
    (planes,) = struct.unpack_from(">H", head, place + 40)
    return _FrameSize(bottom - top, right - left, planes)


def _rle_size(fragment: memoryview) -> _FrameSize | None:
    """Read the number of segments: one for each byte of a pixel (PS3.5 G.5)."""
    if len(fragment) < 64:
        return None
    return _FrameSize(None, None, int.from_bytes(fragment[:4], "little"))
