"""A file that is no film is told by what it is, whatever it is called, and none of its text."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_dicom import dicom_bytes, small_image
from PIL import Image

from lapvqa.dicom.picture import read_film
from lapvqa.dicom.strangers import describe
from lapvqa.errors import DicomError

FILM = small_image(0).astype(np.uint8)


def picture(kind: str) -> bytes:
    stream = BytesIO()
    Image.fromarray(FILM).save(stream, kind)
    return stream.getvalue()


def said(name: str, data: bytes) -> str:
    with pytest.raises(DicomError) as caught:
        read_film(data, name)
    return caught.value.message


PNG, JPEG = picture("PNG"), picture("JPEG")
PAGE = b"\n<!DOCTYPE html>\n<html><title>Kanarienvogel</title></html>"


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "an empty file"),
        (picture("TIFF"), "a TIFF"),
        (picture("GIF"), "a GIF"),
        (picture("BMP"), "a BMP"),
        (b"FINDINGS: Kanarienvogel. No effusion.\n", "text"),
        (PAGE, "a web page"),
        (b'<?xml version="1.0"?><soap>Kanarienvogel</soap>', "XML"),
        (b'{"error": "Kanarienvogel"}', "JSON"),
        (b"%PDF-1.7 Kanarienvogel", "a PDF"),
        (b"PK\x03\x04" + bytes(200), "a zip"),
        (b"\x1f\x8b\x08" + bytes(200), "a gzip"),
        (bytes(300), "nothing but zeros"),
        (b"????????" + PNG[8:], "a PNG whose first 8 bytes"),
        (b"\0\0\0" + JPEG[3:], "a JPEG whose first bytes"),
        (bytes(range(1, 256)), "bytes of no kind that is known"),
    ],
)
def test_what_it_is_is_said_and_what_its_name_promised(data: bytes, found: str) -> None:
    for name in ("a.dcm", "", "IM0001"):
        assert said(name, data).startswith(
            f"expected a DICOM file (DICM at byte 128), found {found}"
        )
    for name in ("a.png", "A.JPG", "a.jpeg"):
        assert said(name, data).startswith(f"expected a PNG or JPEG, found {found}")
        assert "Kanarienvogel" not in said(name, data)


def test_what_a_file_holds_goes_before_its_name() -> None:
    for data in (dicom_bytes(small_image(0), bits=8), PNG, JPEG):
        for name in ("a.png", "a.dcm", "a.txt", ""):
            assert read_film(data, name).pixels.shape == (384, 384)


def test_a_damaged_picture_says_which_part_of_it() -> None:
    place = PNG.index(b"IDAT") + 6
    damaged = PNG[:place] + bytes([PNG[place] ^ 1]) + PNG[place + 1 :]
    assert said("a.png", damaged).startswith("the PNG's chunk IDAT is damaged")
    assert said("a.png", PNG[:16] + b"\0\0\0\0" + PNG[20:]).startswith("the PNG's chunk IHDR")
    assert said("a.png", PNG[:100]) == "expected a whole PNG, found its end within a chunk"
    assert said("a.jpg", JPEG[:-300]) == "expected a whole JPEG, found no end mark"
    assert said("a.png", PNG[:5]) == "expected a PNG or JPEG, found 5 bytes"


@given(st.binary(max_size=600))
def test_of_any_bytes_no_more_than_the_kind_is_told(data: bytes) -> None:
    assert describe(data + b"Kanarienvogel").isascii()
    assert "Kanarienvogel" not in describe(data + b"Kanarienvogel")
