"""The first half of reading a file: its bytes to a header and the place of its pixel data.

A file need not be as PS3.10 7.1 has it: without preamble, file meta or transfer syntax it is read
as what its first element looks like, and that is noted.

No size in the file is trusted: sizes are checked before pixels are touched, a deflated file is
inflated only as far as its header needs, and a compressed frame that claims another size than the
header is rejected before a decoder reserves memory for it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

from pydicom import Dataset
from pydicom import uid as uids
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.valuerep import STANDARD_VR

from lapvqa.dicom import strangers
from lapvqa.dicom.fallbacks import drop_unusable
from lapvqa.dicom.header import (
    MONOCHROME,
    READ_TAGS,
    CompanionError,
    Header,
    read_header,
    require_one_picture,
)
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
_META = b"\x02\0"
_VRS = frozenset(vr.value.encode() for vr in STANDARD_VR)
NO_PREAMBLE = "no preamble"
PADDING_IGNORED = "padding behind the pixels ignored"
_PIXEL_DATA = 0x7FE00010
_FLOAT_PIXELS = (0x7FE00008, 0x7FE00009)
_PIXEL_VRS = frozenset({"OB", "OW", "UN"})
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
    note: str = ""
    """What was passed over or guessed, empty if nothing was: it cost no pixel its value."""


@dataclass(frozen=True)
class _Begin:
    """How the data set is written, what the file meta says it is, and where it begins."""

    syntax: uids.UID
    sop_class: str
    start: int
    notes: Sequence[str]


@dataclass(frozen=True)
class _Size:
    """Rows, columns and bits of a cell that the header announces."""

    rows: int
    cols: int
    allocated: int


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
    """Read the header and find the pixel data.

    Raises CompanionError if the object is no image, otherwise DicomError.
    """
    with quiet(), as_reason(Reason.BAD_HEADER, "a readable header"):
        begin = _begin(data)
        syntax = begin.syntax
        if syntax not in NATIVE and syntax not in DECODERS:
            raise DicomError(Reason.UNSUPPORTED_SYNTAX, f"no decoder for {syntax.name[:64]!r}")
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        start = begin.start
        if syntax == uids.DeflatedExplicitVRLittleEndian:
            data, start = inflater.decompress(data[start:], _MAX_INFLATED_HEADER), 0
        stream = BytesIO(data)
        stream.seek(start)
        dataset = _read(stream, begin)
        header = read_header(dataset, transfer_syntax=str(syntax), sop_class=begin.sop_class)
        # Before all else: in a file that is cut, everything else may be missing too.
        element = _pixel_element(data, stream.tell(), dataset, inflater)
        pixel_data = memoryview(data)[element.start :]
        if syntax in DECODERS:
            pixel_data, fragment = _whole_items(pixel_data)
            if element.length not in (_UNDEFINED, len(pixel_data)):
                raise DicomError(Reason.WRONG_LENGTH, "compressed pixel data of another length")
        elif element.length == _UNDEFINED:
            raise _undefined_length(begin)
        require_one_picture(header, dataset)
        size = _checked_sizes(dataset)
        samples = _checked_meaning(dataset)
        notes = list(begin.notes)
        if syntax in DECODERS:
            _require_frame_size(syntax, fragment, size, samples=samples)
        else:
            if syntax == uids.DeflatedExplicitVRLittleEndian:
                pixel_data = _inflated(pixel_data, element.length, inflater)
            pixel_data = pixel_data[: element.length]
            pixel_data, ignored = _without_padding(pixel_data, size, samples=samples)
            notes += ignored
        if header.photometric in MONOCHROME:
            notes += drop_unusable(dataset)
    return ParsedDicom(header, dataset, pixel_data, element.vr, "; ".join(notes))


def _begin(data: bytes) -> _Begin:
    """Return how the data set is written and where it begins (PS3.10 7.1); raises DicomError.

    The preamble, the file meta, its transfer syntax: what is absent is told by the bytes that come
    next. CompanionError for a DICOMDIR, which is known by its file meta alone.
    """
    notes = []
    start = _PREAMBLE + 4 if data[_PREAMBLE : _PREAMBLE + 4] == b"DICM" else 0
    if not start:
        if not _is_bare(data):
            expected = "expected a DICOM file (DICM at byte 128)"
            raise DicomError(Reason.NOT_DICOM, f"{expected}, found {strangers.describe(data)}")
        notes.append(NO_PREAMBLE)
    syntax, sop_class = "", ""
    if data[start : start + 2] == _META:
        stream = BytesIO(data)
        stream.seek(start)
        meta = read_dataset(
            stream, is_implicit_VR=False, is_little_endian=True, stop_when=_beyond_file_meta
        )
        start = stream.tell()
        syntax = str(meta.get("TransferSyntaxUID") or "")
        sop_class = str(meta.get("MediaStorageSOPClassUID") or "")
    if sop_class == uids.MediaStorageDirectoryStorage:
        raise CompanionError("dicomdir", Header("", "", "", "", "", "", "", 0, syntax))
    if not syntax:
        syntax = _syntax_of(data[start : start + 8])
        notes.append(f"no transfer syntax stated, read as {uids.UID(syntax).name}")
    return _Begin(uids.UID(syntax), sop_class, start, notes)


def _is_bare(data: bytes) -> bool:
    """Say whether a data set without preamble may begin here: group 0002 or 0008, little endian."""
    return data[:2] in (_META, b"\x08\0") and len(data) > _PREAMBLE and data[3] == 0


def _syntax_of(head: bytes) -> str:
    """Return the transfer syntax of native pixels in which an element begins like ``head``."""
    if head[4:6] not in _VRS:
        return str(uids.ImplicitVRLittleEndian)
    is_big = head[0] == 0 and head[1] != 0
    return str(uids.ExplicitVRBigEndian if is_big else uids.ExplicitVRLittleEndian)


def _read(stream: BytesIO, begin: _Begin) -> Dataset:
    """Read the allowed attributes up to the pixel data; raises DicomError if these are no DICOM."""
    is_bare = NO_PREAMBLE in begin.notes
    reason = Reason.MISSING_PREAMBLE if is_bare else Reason.BAD_HEADER
    with as_reason(reason, "a readable data set"):
        dataset = read_dataset(
            stream,
            begin.syntax.is_implicit_VR,
            begin.syntax.is_little_endian,
            stop_when=_at_pixel_data,
            specific_tags=_READ_TAGS,
        )
    if is_bare and not any(name in dataset for name in ("SOPClassUID", "SOPInstanceUID", "Rows")):
        raise DicomError(reason, "expected DICM at byte 128 or a data set, found the like of one")
    return dataset


def _undefined_length(begin: _Begin) -> DicomError:
    if begin.notes:  # the syntax is a guess, and wrong
        return DicomError(
            Reason.UNSUPPORTED_SYNTAX, "compressed pixel data, and no transfer syntax is stated"
        )
    return DicomError(Reason.WRONG_LENGTH, "native pixel data of undefined length")


def _without_padding(
    data: memoryview, size: _Size, *, samples: int
) -> tuple[memoryview, list[str]]:
    """Cut native pixel data to its image, and note if that took more than the even length asks for.

    PS3.5 8.1.1 lets a reader pass over what stands behind the pixels. But rows or columns that do
    not belong to the data leave a rest, too: so it has to be of one value, or shorter than any row
    or column. Raises DicomError otherwise.
    """
    expected = size.rows * size.cols * samples * size.allocated // 8
    even = expected + expected % 2
    rest = bytes(data[even:])
    if not rest:
        return data, []
    shortest = min(size.rows, size.cols) * samples * size.allocated // 8
    if len(rest) >= shortest and rest != rest[:1] * len(rest):
        raise DicomError(
            Reason.WRONG_LENGTH, f"expected {expected} bytes of pixels, found {len(data)}"
        )
    return data[:even], [PADDING_IGNORED]


def _beyond_file_meta(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag >> 16 != 2


def _at_pixel_data(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag == _PIXEL_DATA or tag in _FLOAT_PIXELS


def _checked_sizes(dataset: Dataset) -> _Size:
    """Return the size of the image and its cells; raises DicomError if they are not usable."""
    rows, cols = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    if rows * cols == 0:
        raise DicomError(Reason.NO_PIXEL_DATA, "expected Rows and Columns, found none")
    require_size(rows, cols)
    allocated, stored = int(dataset.get("BitsAllocated") or 0), int(dataset.get("BitsStored") or 0)
    if allocated not in (8, 16):
        raise DicomError(Reason.UNSUPPORTED_BITS, f"{allocated} bits allocated, expected 8 or 16")
    if not 1 <= stored <= allocated:
        raise DicomError(Reason.BAD_HEADER, f"{stored} bits stored in {allocated} allocated")
    return _Size(rows, cols, allocated)


def _checked_meaning(dataset: Dataset) -> int:
    """Return Samples per Pixel; raises DicomError if what a pixel means would be a guess."""
    is_grey = dataset.PhotometricInterpretation.strip().upper() in MONOCHROME
    expected = {"SamplesPerPixel": (1 if is_grey else 3,), "PixelRepresentation": (0, 1)}
    if not is_grey:
        expected["PlanarConfiguration"] = (0, 1)
    for name, allowed in expected.items():  # all of type 1 here (PS3.3 C.7.6.3)
        if dataset.get(name) not in allowed:
            raise DicomError(Reason.BAD_HEADER, f"expected {name} {' or '.join(map(str, allowed))}")
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


def _require_frame_size(syntax: str, fragment: memoryview, size: _Size, *, samples: int) -> None:
    """Raise DicomError if the frame that begins with ``fragment`` claims another size."""
    rows, cols = size.rows, size.cols
    if syntax == uids.RLELossless:
        frame, samples = _rle_size(fragment), samples * size.allocated // 8
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
