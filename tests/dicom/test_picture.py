"""PNG and JPEG files to stored images: greys as they are, and every damaged file rejected."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import cv2
import numpy as np
import pytest
from made_dicom import SIDE, dicom_bytes, ramp, small_image
from numpy.typing import NDArray
from PIL import Image

from lapvqa.dicom.picture import read_picture
from lapvqa.dicom.render import read_image
from lapvqa.errors import DicomError

GREY = ramp(8).astype(np.uint8)
COLOUR = np.stack([GREY, GREY.T, 255 - GREY], axis=-1)
LUMA = COLOUR @ np.array([0.299, 0.587, 0.114])


def encoded(pixels: NDArray[Any] | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(stream, kind, **options)
    return stream.getvalue()


def content(data: bytes) -> NDArray[np.uint8]:
    image = read_picture(data)
    return image.pixels[image.fit.content]


def reason_of(data: bytes) -> str:
    with pytest.raises(DicomError) as caught:
        read_picture(data)
    return caught.value.reason


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(rows: int, cols: int, *, bits: int = 8, colour: int = 0, body: bytes = b"") -> bytes:
    """A PNG whose header says what it likes."""
    head = struct.pack(">IIBBBBB", cols, rows, bits, colour, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(body))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + data + chunk(b"IEND", b"")


def test_eight_bits_are_taken_as_they_are() -> None:
    image = read_picture(encoded(GREY))
    assert np.array_equal(image.pixels[image.fit.content], GREY)
    assert image.voi == "rendered"
    head = image.meta
    assert (head.photometric, head.bits_stored, head.transfer_syntax) == (
        "MONOCHROME2", 8, "image/png",
    )  # fmt: skip
    assert not head.instance_uid + head.study_uid + head.patient_id + head.study_date + head.view
    assert (image.fit.native_rows, image.fit.native_cols) == (SIDE, SIDE)


@pytest.mark.parametrize("shape", [(756, 500), (1000, 1200), (100, 90)])
def test_a_picture_is_fitted_as_a_dicom_file_is(shape: tuple[int, int]) -> None:
    rows, cols = shape
    pixels = ramp(8, rows=rows, cols=cols).astype(np.uint8)
    same = read_image(dicom_bytes(pixels, bits=8, WindowCenter=128, WindowWidth=256))
    image = read_picture(encoded(pixels))
    assert np.array_equal(image.pixels, same.pixels)
    assert image.fit == same.fit


def test_sixteen_bits_are_windowed_as_a_dicom_file_without_window() -> None:
    deep = ramp(12, rows=500, cols=640)
    image, same = read_picture(encoded(deep)), read_image(dicom_bytes(deep, bits=16))
    assert image.voi == same.voi == "percentile"
    assert np.array_equal(image.pixels, same.pixels)
    assert image.meta.bits_stored == 16


def test_jpeg_is_its_grey_or_its_luma() -> None:
    for data in (encoded(GREY, "JPEG", quality=95), encoded(COLOUR, "JPEG", quality=95)):
        again = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert np.abs(content(data).astype(int) - again).max() <= 1
        assert read_picture(data).meta.transfer_syntax == "image/jpeg"
    assert np.abs(content(data) - LUMA).max() < 16  # lossy, but the right one of three channels


def test_of_colour_the_luma_is_left() -> None:
    opaque = Image.fromarray(COLOUR)
    see_through = opaque.copy()
    see_through.putalpha(Image.fromarray(GREY))
    for image in (opaque, see_through):
        assert np.abs(content(encoded(image)) - LUMA).max() <= 1
    palette = opaque.quantize(200)
    expected = np.asarray(palette.convert("RGB")) @ np.array([0.299, 0.587, 0.114])
    assert np.abs(content(encoded(palette)) - expected).max() <= 1
    with_alpha = Image.merge("LA", (Image.fromarray(GREY), Image.fromarray(GREY.T.copy())))
    assert np.array_equal(content(encoded(with_alpha)), GREY)


def test_the_orientation_tag_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = ramp(8, rows=300, cols=500).astype(np.uint8)
    turned = read_picture(encoded(pixels, "JPEG", exif=exif))
    assert np.array_equal(turned.pixels, read_picture(encoded(pixels, "JPEG")).pixels)


def test_a_cut_picture_is_never_an_image() -> None:
    data = encoded(small_image(1))
    for end in range(len(data)):
        assert reason_of(data[:end]) == "truncated"
    data = encoded(small_image(1), "JPEG")
    for end in range(len(data)):
        assert reason_of(data[:end]) == "truncated"


def test_a_flipped_byte_in_a_png_is_never_an_image() -> None:
    data = encoded(small_image(2))
    whole = read_picture(data).pixels
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 0x55
        try:
            image = read_picture(bytes(damaged))
        except DicomError:
            continue
        assert np.array_equal(image.pixels, whole)


def test_a_flipped_byte_in_a_jpeg_costs_no_more_than_the_file() -> None:
    data = encoded(small_image(3), "JPEG")
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 0x55
        try:
            image = read_picture(bytes(damaged))
        except DicomError:
            continue
        assert image.pixels.shape == (384, 384)


def test_sizes_are_checked_before_anything_is_decoded() -> None:
    assert reason_of(png(46_341, 46_341)) == "too_large"
    assert reason_of(png(20_000, 6_000)) == "too_large"
    jpeg = bytearray(encoded(GREY, "JPEG"))
    place = jpeg.index(b"\xff\xc0") + 5
    jpeg[place : place + 4] = struct.pack(">HH", 46_341, 46_341)
    assert reason_of(bytes(jpeg)) == "too_large"
    assert reason_of(encoded(GREY[:63])) == "too_small"
    assert reason_of(encoded(ramp(8, rows=2_000, cols=80).astype(np.uint8))) == "too_small"


def test_what_is_no_radiograph_is_turned_away() -> None:
    bits_of_one = Image.fromarray(GREY).convert("1")
    deep_colour = np.stack([ramp(12)] * 3, axis=-1)
    moving = BytesIO()
    frames = [Image.fromarray(GREY), Image.fromarray(GREY.T.copy())]
    frames[0].save(moving, "PNG", save_all=True, append_images=frames[1:])
    expected = {
        "constant_image": encoded(np.full((SIDE, SIDE), 7, np.uint8)),
        "unsupported_bits": encoded(bits_of_one),
        "multi_frame": moving.getvalue(),
        "truncated": b"",
        "decode_failed": b"<html>404 Not Found</html>",
    }
    assert {reason: reason_of(data) for reason, data in expected.items()} == {
        reason: reason for reason in expected
    }
    deep_png = cv2.imencode(".png", deep_colour)[1].tobytes()
    assert reason_of(deep_png) == "unsupported_photometric"
    assert reason_of(encoded(Image.fromarray(COLOUR).convert("CMYK"), "JPEG")) == (
        "unsupported_photometric"
    )
    rows_missing = png(100, 100, body=bytes(range(101)) * 50)
    assert reason_of(rows_missing) == "decode_failed"
