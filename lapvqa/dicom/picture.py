"""One PNG or JPEG file to one stored image, for archives that publish pictures.

A picture holds no identifiers and no word on how to show it: 8 bits are greys as its maker chose
them ("rendered"); 16 bits are windowed between percentiles, as a DICOM file without any window.
Orientation tags, colour profiles and transparency are ignored.

PNG has checksums, and each is compared: its decoder does not. JPEG has none: a cut file is
noticed, a flipped bit within the scan is not.
"""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset

from lapvqa.dicom.coding import Cells, Coding
from lapvqa.dicom.faults import as_reason, quiet
from lapvqa.dicom.header import Header
from lapvqa.dicom.parse import require_size
from lapvqa.dicom.reasons import Reason
from lapvqa.dicom.render import DicomImage, show
from lapvqa.errors import DicomError

RENDERED = "rendered"
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_JPEG_END = b"\xff\xd9"
_PNG_GREY = 0
_COLOURS = frozenset({"RGB", "RGBA", "P"})
_GREYS = frozenset({"L", "LA", "I;16"})


def read_picture(data: bytes) -> DicomImage:
    """Read one PNG or JPEG file's bytes; raises DicomError with its reason."""
    if data.startswith(_PNG):
        _require_whole_png(data)
        kind, bits = "image/png", _png_bits(data)
    elif data.startswith(_JPEG):
        kind, bits = "image/jpeg", 8
    elif not data or _PNG.startswith(data[: len(_PNG)]) or _JPEG.startswith(data[: len(_JPEG)]):
        raise DicomError(Reason.TRUNCATED, f"expected a picture, found {len(data)} bytes")
    else:
        raise DicomError(Reason.DECODE_FAILED, "expected a PNG or JPEG, found another kind of file")
    cells = _cells(data, kind)
    header = Header(
        instance_uid="", study_uid="", patient_id="", study_date="", study_time="", view="",
        photometric="MONOCHROME2", bits_stored=bits, transfer_syntax=kind,
    )  # fmt: skip
    if bits == 16:
        return show(Dataset(), Coding(16), cells, header)
    image = show(_as_it_is(), Coding(8), cells, header)
    return DicomImage(image.pixels, image.fit, RENDERED, header)


def _as_it_is() -> Dataset:
    """Return the window that shows 0 black and 255 white (PS3.3 C.11.2.1.2.1)."""
    described = Dataset()
    described.WindowCenter, described.WindowWidth = 128, 256
    return described


def _require_whole_png(data: bytes) -> None:
    """Walk the chunks up to IEND; raises DicomError if the file is cut or a checksum is wrong."""
    place, kind = len(_PNG), b""
    while kind != b"IEND":
        head = data[place : place + 8]
        end = place + 12 + (struct.unpack(">I", head[:4])[0] if len(head) == 8 else 0)
        if end > len(data) or len(head) < 8:
            raise DicomError(Reason.TRUNCATED, "expected a whole PNG, found its end within a chunk")
        (checksum,) = struct.unpack(">I", data[end - 4 : end])
        if zlib.crc32(memoryview(data)[place + 4 : end - 4]) != checksum:
            raise DicomError(Reason.DECODE_FAILED, "a chunk's checksum is not that of its bytes")
        place, kind = end, head[4:]


def _png_bits(data: bytes) -> int:
    """Return the bits of a sample; raises DicomError if they are not usable."""
    bits, colour = data[24], data[25]  # of IHDR, which comes first
    if bits not in (8, 16):
        raise DicomError(Reason.UNSUPPORTED_BITS, f"{bits} bits a sample, expected 8 or 16")
    if bits == 16 and colour != _PNG_GREY:
        raise DicomError(Reason.UNSUPPORTED_PHOTOMETRIC, "16 bits of colour or with transparency")
    return int(bits)


def _cells(data: bytes, kind: str) -> Cells:
    """Decode to greys [rows, cols]; sizes are checked before anything is decoded."""
    with quiet(), as_reason(Reason.DECODE_FAILED, "a decodable picture"):
        try:
            picture = Image.open(BytesIO(data), formats=("PNG", "JPEG"))
        except Image.DecompressionBombError:
            raise DicomError(Reason.TOO_LARGE, "more pixels than are read") from None
        with picture:
            cols, rows = picture.size
            require_size(rows, cols)
            if getattr(picture, "is_animated", False):
                raise DicomError(Reason.MULTI_FRAME, "expected one picture, found several")
            if picture.mode not in _GREYS | _COLOURS:
                raise DicomError(
                    Reason.UNSUPPORTED_PHOTOMETRIC, f"expected grey or RGB, found {picture.mode}"
                )
            if kind == "image/jpeg":
                picture.draft("L", None)  # the Y of YCbCr, as it is stored
            _load(picture, data)
            return _grey(picture)


def _load(picture: Image.Image, data: bytes) -> None:
    try:
        picture.load()
    except OSError as error:
        # Pillow tells neither by a type of its own; a JPEG that ends without its mark is cut.
        is_cut = data.startswith(_JPEG) and not data.rstrip(b"\0\r\n").endswith(_JPEG_END)
        reason = Reason.TRUNCATED if is_cut else Reason.DECODE_FAILED
        name = type(error).__name__
        raise DicomError(
            reason, f"expected a decodable picture, met {name}", exception=name
        ) from None


def _grey(picture: Image.Image) -> Cells:
    if picture.mode == "I;16":
        deep: NDArray[np.uint16] = np.asarray(picture).astype(np.uint16)
        return deep
    if picture.mode in _COLOURS:
        # .299 R + .587 G + .114 B, the Y of YBR_FULL (PS3.3 C.7.6.3.1.2), as of colour in DICOM.
        rgb = np.ascontiguousarray(picture.convert("RGB"), dtype=np.uint8)
        luma: NDArray[np.uint8] = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        return luma
    grey = np.asarray(picture)
    return np.ascontiguousarray(grey[..., 0] if picture.mode == "LA" else grey)
