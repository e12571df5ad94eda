"""Files that are not as PS3.10 and PS3.5 have it, and whose pixels are known nevertheless."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from made_dicom import SIDE, bytes_of, dataset_of, dicom_bytes, ramp
from pydicom import dcmread
from pydicom import uid as uids
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import pixel_array
from test_parity_dcmtk import needs_dcmtk

from lapvqa.datasets import pictures
from lapvqa.dicom.parse import parse
from lapvqa.dicom.reasons import Reason
from lapvqa.dicom.render import read_image
from lapvqa.errors import DicomError

WHOLE_RANGE = {"WindowCenter": 2048, "WindowWidth": 4096}
NATIVE = (
    uids.ImplicitVRLittleEndian,
    uids.ExplicitVRLittleEndian,
    uids.ExplicitVRBigEndian,
    uids.DeflatedExplicitVRLittleEndian,
)


def without_syntax() -> bytes:
    data = dicom_bytes(ramp(), **WHOLE_RANGE)
    place = data.index(b"\x02\0\x10\0UI")
    return data[:place] + data[place + 8 + data[place + 6] :]


LOOSE: dict[str, Callable[[], bytes]] = {
    "file meta, no preamble": lambda: dicom_bytes(ramp(), **WHOLE_RANGE)[132:],
    "explicit data set": lambda: _bare(uids.ExplicitVRLittleEndian),
    "implicit data set": lambda: _bare(uids.ImplicitVRLittleEndian),
    "preamble, no file meta, explicit": lambda: _preamble() + _bare(uids.ExplicitVRLittleEndian),
    "preamble, no file meta, implicit": lambda: _preamble() + _bare(uids.ImplicitVRLittleEndian),
    "preamble, no file meta, big endian": lambda: _preamble() + _bare(uids.ExplicitVRBigEndian),
    "no transfer syntax": without_syntax,
}


def _preamble() -> bytes:
    return b"\0" * 128 + b"DICM"


def _bare(syntax: uids.UID) -> bytes:
    data = dicom_bytes(ramp(), syntax=syntax, **WHOLE_RANGE)
    first = b"\0\x08\0\x16" if syntax == uids.ExplicitVRBigEndian else b"\x08\0\x16\0"
    return data[data.index(first, 132) :]


@pytest.mark.parametrize("name", LOOSE)
def test_what_a_file_lacks_before_its_data_set_is_told_by_it(name: str) -> None:
    whole = dicom_bytes(ramp(), **WHOLE_RANGE)
    assert parse(whole).note == ""
    parsed = parse(LOOSE[name]())
    assert ("no preamble" in parsed.note) == (not name.startswith(("preamble", "no transfer")))
    assert ("no transfer syntax" in parsed.note) == ("file meta, no" not in name)
    assert parsed.header.study_uid == "1.2.3"
    assert np.array_equal(read_image(LOOSE[name]()).pixels, read_image(whole).pixels)


@pytest.mark.parametrize("name", LOOSE)
def test_a_loose_file_that_is_cut_is_turned_away(name: str) -> None:
    data = LOOSE[name]()
    for share in (0.001, 0.5, 0.99):
        with pytest.raises(DicomError):
            read_image(data[: int(len(data) * share)])


def test_compressed_pixels_without_a_transfer_syntax_are_not_guessed() -> None:
    dataset = dataset_of(ramp())
    dataset.compress(uids.RLELossless)
    data = bytes_of(dataset)
    with pytest.raises(DicomError) as caught:
        parse(data[data.index(b"\x08\0\x16\0", 132) :])
    assert caught.value.reason == Reason.UNSUPPORTED_SYNTAX


@given(st.binary(max_size=400))
@settings(max_examples=200)
def test_bytes_that_begin_like_a_data_set_are_none(rest: bytes) -> None:
    for begin in (b"\x08\0\x05\0", b"\x02\0\0\0", b"\0" * 128 + b"DICM\x08\0\x16\0"):
        with pytest.raises(DicomError):
            read_image(begin + rest)


PADDINGS = {
    "two bytes": bytes(2),
    "two bytes of something": b"ab",
    "a row of zeros": bytes(2 * SIDE),
    "many zeros": bytes(10_000),
    "almost a row of something": bytes(range(251)) * 3,
}


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize("name", PADDINGS)
def test_padding_behind_the_pixels_is_passed_over_and_noted(name: str, syntax: uids.UID) -> None:
    dataset = dataset_of(ramp(), syntax=syntax, **WHOLE_RANGE)
    plain = read_image(bytes_of(dataset)).pixels
    padding = PADDINGS[name] + bytes(len(PADDINGS[name]) % 2)
    dataset.PixelData += padding
    data = bytes_of(dataset)
    assert parse(data).note == "padding behind the pixels ignored"
    assert np.array_equal(read_image(data).pixels, plain)


@pytest.mark.parametrize(("rows", "cols"), [(SIDE, SIDE - 1), (SIDE - 1, SIDE), (SIDE // 2, SIDE)])
def test_pixels_of_another_size_than_the_header_says_are_no_padding(rows: int, cols: int) -> None:
    with pytest.raises(DicomError) as caught:
        read_image(dicom_bytes(ramp(), Rows=rows, Columns=cols))
    assert caught.value.reason == Reason.WRONG_LENGTH


def colours() -> np.ndarray:
    y, x = np.mgrid[:99, :101]
    return np.stack([2 * x, 2 * y, x + y], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("planar", [0, 1])
def test_big_endian_colour_in_words_is_put_right(planar: int) -> None:
    rgb = colours()
    dataset = dataset_of(rgb, bits=8, syntax=uids.ExplicitVRBigEndian, PlanarConfiguration=planar)
    flat = (rgb if planar == 0 else np.moveaxis(rgb, -1, 0)).tobytes() + b"\0"
    in_bytes = dataset.PixelData = flat
    expected = read_image(bytes_of(dataset)).pixels
    dataset.PixelData = np.frombuffer(in_bytes, ">u2").astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    data = bytes_of(dataset)
    assert np.array_equal(pixel_array(BytesIO(data)), rgb)  # pydicom agrees
    assert np.array_equal(read_image(data).pixels, expected)


@needs_dcmtk
def test_big_endian_colour_is_read_as_dcmtk_reads_it(tmp_path: Path) -> None:
    dataset = dataset_of(colours(), bits=8)
    dataset.PixelData += b"\0"
    dataset.SeriesInstanceUID = "1.2.3.5"
    dataset["PixelData"].VR = "OW"
    (tmp_path / "little.dcm").write_bytes(bytes_of(dataset))
    command = ["dcmconv", "+tb", tmp_path / "little.dcm", tmp_path / "big.dcm"]
    subprocess.run(command, check=True, capture_output=True)
    data = (tmp_path / "big.dcm").read_bytes()
    parsed = parse(data)
    assert (parsed.header.transfer_syntax, parsed.pixel_vr) == (uids.ExplicitVRBigEndian, "OW")
    assert np.array_equal(read_image(data).pixels, read_image(bytes_of(dataset)).pixels)


@pytest.mark.parametrize("bits", [2, 5, 6, 7])
@pytest.mark.parametrize("near", [False, True])
def test_jpeg_ls_of_few_bits_is_exact(bits: int, near: bool) -> None:
    pixels = ramp(bits).astype(np.uint8)
    dataset = dataset_of(pixels, bits=bits, WindowCenter=1 << (bits - 1), WindowWidth=1 << bits)
    plain = read_image(bytes_of(dataset)).pixels
    syntax = uids.JPEGLSNearLossless if near else uids.JPEGLSLossless
    dataset.compress(syntax, encoding_plugin="pyjpegls")
    assert np.array_equal(read_image(bytes_of(dataset)).pixels, plain)


def test_jpeg_ls_of_7_bits_that_is_cut_is_turned_away_at_once() -> None:
    dataset = dataset_of(ramp(7).astype(np.uint8), bits=7)
    dataset.compress(uids.JPEGLSLossless, encoding_plugin="pyjpegls")
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    dataset.PixelData = encapsulate([frame[: len(frame) // 2]])
    with pytest.raises(DicomError) as caught:
        read_image(bytes_of(dataset))
    assert caught.value.reason == Reason.DECODE_FAILED


@given(
    arrays(np.uint8, st.tuples(st.integers(64, 90), st.integers(64, 90))),
    st.sampled_from(["grey", "colour"]),
)
@settings(max_examples=25)
def test_a_picture_and_a_dicom_file_of_the_same_bytes_are_stored_alike(
    tmp_path_factory: pytest.TempPathFactory, cells: np.ndarray, kind: str
) -> None:
    if np.ptp(cells) < 40:
        cells[0, :2] = 0, 200
        cells[:40] = 90
    if kind == "colour":
        cells = np.stack([cells, cells[::-1], cells[:, ::-1]], axis=-1)
    folder = tmp_path_factory.mktemp("same")
    cv2.imwrite(str(folder / "one.png"), cells[..., ::-1] if kind == "colour" else cells)
    (folder / "one.dcm").write_bytes(dicom_bytes(cells, bits=8))
    picture, film = (pictures.read_image(folder / f"one.{kind}") for kind in ("png", "dcm"))
    assert np.array_equal(picture.pixels, film.pixels)
    assert picture.fit == film.fit


def test_signed_padding_is_known_under_implicit_vr_too() -> None:
    cells = (ramp(12).astype(np.int16) - 2048).astype(np.int16)
    cells[:50] = -2000
    dataset = dataset_of(
        cells, bits=16, syntax=uids.ImplicitVRLittleEndian, PhotometricInterpretation="MONOCHROME1",
        **WHOLE_RANGE,
    )  # fmt: skip
    shown = {}
    for vr, value in (("US", 63536), ("SS", -2000)):
        dataset.add_new("PixelPaddingValue", vr, value)
        data = bytes_of(dataset)
        assert dcmread(BytesIO(data)).PixelPaddingValue in (63536, -2000)
        shown[vr] = read_image(data).pixels
        assert not shown[vr][:49].any()
    assert np.array_equal(shown["US"], shown["SS"])
