"""Read one PNG or JPEG file as one stored image, for archives that publish pictures.

``read_film`` reads whatever a film comes as, these or DICOM, told apart by the first bytes; where
these tell nothing, the name says what was expected.

A picture holds no identifiers and does not say how to show it. It is shown as a DICOM file that
does not say so either: 8 bits are greys as its maker chose them ("rendered"), 16 bits are windowed
between percentiles.
Orientation tags, colour profiles and transparency are ignored.

PNG has checksums, and each is compared. JPEG has none: a cut file is noticed, a flipped bit within
the scan may not be. OpenCV decodes PNG and Pillow JPEG, because each of them accepts a cut file of
the other kind.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO

import cv2
import numpy as np
from PIL import Image
from pydicom import Dataset

from lapvqa.dicom import strangers
from lapvqa.dicom.header import Header
from lapvqa.dicom.parse import require_size
from lapvqa.dicom.pixels import Cells, Coding, luma
from lapvqa.dicom.reasons import Reason, as_reason, quiet
from lapvqa.dicom.render import DicomImage, read_image, show
from lapvqa.dicom.strangers import JPEG, PNG
from lapvqa.errors import DicomError

_SUFFIXES = (".png", ".jpg", ".jpeg")
_PNG_GREY = 0
_JPEG_SCAN = b"\xff\xda"
_JPEG_END = b"\xff\xd9"


def read_film(data: bytes, name: str = "") -> DicomImage:
    """Read one file's bytes, DICOM or PNG or JPEG; raises DicomError with its reason.

    ``name``: of the file, empty if it has none; it never goes before what the bytes are.
    """
    is_picture = data.startswith((PNG, JPEG))
    if not is_picture and name.lower().endswith(_SUFFIXES):
        is_picture = strangers.describe(data) != strangers.DICOM
    return read_picture(data) if is_picture else read_image(data)


def read_greys(cells: Cells) -> DicomImage:
    """Read grey values [rows, cols], uint8 or uint16, as the same picture's file would be read."""
    rows, cols = cells.shape
    require_size(rows, cols)
    return _shown(cells, "")


def read_picture(data: bytes) -> DicomImage:
    """Read one PNG or JPEG file's bytes; raises DicomError with its reason."""
    with quiet(), as_reason(Reason.DECODE_FAILED, "a decodable picture"):
        if data.startswith(PNG):
            _check_png(data)
            kind, cells = "image/png", _png_cells(data)
        elif data.startswith(JPEG):
            kind, cells = "image/jpeg", _jpeg_cells(data)
        elif PNG.startswith(data) or JPEG.startswith(data):
            found = f"{len(data)} bytes" if data else strangers.describe(data)
            raise DicomError(Reason.TRUNCATED, f"expected a PNG or JPEG, found {found}")
        else:
            found = strangers.describe(data)
            raise DicomError(Reason.DECODE_FAILED, f"expected a PNG or JPEG, found {found}")
    return _shown(cells, kind)


def _shown(cells: Cells, kind: str) -> DicomImage:
    bits = 8 * cells.itemsize
    header = Header(
        instance_uid="", study_uid="", patient_id="", study_date="", study_time="", view="",
        photometric="MONOCHROME2", bits_stored=bits, transfer_syntax=kind,
    )  # fmt: skip
    return show(Dataset(), Coding(bits), cells, header)


def _check_png(data: bytes) -> None:
    """Raise DicomError if the file is damaged or not usable."""
    kinds = list(_chunks(data))
    if kinds[0] != b"IHDR":
        raise DicomError(
            Reason.DECODE_FAILED, "expected a PNG's header (IHDR) first, found another chunk"
        )
    cols, rows, bits, colour = struct.unpack_from(">IIBB", data, 16)
    require_size(rows, cols)
    if b"acTL" in kinds:
        raise DicomError(Reason.MULTI_FRAME, "expected one picture, found several")
    if bits not in (8, 16):
        raise DicomError(Reason.UNSUPPORTED_BITS, f"{bits} bits a sample, expected 8 or 16")
    if bits == 16 and colour != _PNG_GREY:
        raise DicomError(Reason.UNSUPPORTED_PHOTOMETRIC, "16 bits of colour or with transparency")


def _chunks(data: bytes) -> Iterator[bytes]:
    """Yield the kind of each chunk; raises DicomError if one is cut or damaged."""
    place, kind = len(PNG), b""
    while kind != b"IEND":
        head = data[place : place + 8]
        end = place + 12 + (struct.unpack(">I", head[:4])[0] if len(head) == 8 else 0)
        if end > len(data):
            raise DicomError(Reason.TRUNCATED, "expected a whole PNG, found its end within a chunk")
        (checksum,) = struct.unpack(">I", data[end - 4 : end])
        if zlib.crc32(memoryview(data)[place + 4 : end - 4]) != checksum:
            what = f" {head[4:].decode()}" if head[4:].isalpha() else ""
            raise DicomError(
                Reason.DECODE_FAILED,
                f"the PNG's chunk{what} is damaged: its checksum is not that of its bytes",
            )
        place, kind = end, head[4:]
        yield kind


def _png_cells(data: bytes) -> Cells:
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise DicomError(
            Reason.DECODE_FAILED, "the PNG cannot be decoded: its rows are not those of its header"
        )
    return luma(decoded[..., 2::-1]) if decoded.ndim == 3 else decoded


def _jpeg_cells(data: bytes) -> Cells:
    # A thumbnail before the scan has an end of its own; within a scan FF stands before 00 only.
    if data.rfind(_JPEG_END) < data.rfind(_JPEG_SCAN) or _JPEG_SCAN not in data:
        raise DicomError(Reason.TRUNCATED, "expected a whole JPEG, found no end mark")
    try:
        with Image.open(BytesIO(data), formats=("JPEG",)) as picture:
            require_size(picture.height, picture.width)
            if picture.mode not in ("L", "RGB"):
                raise DicomError(
                    Reason.UNSUPPORTED_PHOTOMETRIC, f"expected grey or RGB, found {picture.mode}"
                )
            picture.draft("L", None)  # the Y of YCbCr, as it is stored
            decoded = np.array(picture)
    except Image.DecompressionBombError:
        raise DicomError(Reason.TOO_LARGE, "more pixels than are read") from None
    return luma(decoded) if decoded.ndim == 3 else decoded
