from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import gdcm
import numpy as np
import pytest
from made_dicom import SIDE, bytes_of, dataset_of, dicom_bytes, ramp
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom import uid as uids
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import pixel_array

import lapvqa.dicom
from lapvqa.dicom import self_test
from lapvqa.dicom.reasons import Reason
from lapvqa.dicom.render import read_image
from lapvqa.errors import DicomError

WHOLE_RANGE = {"WindowCenter": 2048, "WindowWidth": 4096}
BYTE_RANGE = {"WindowCenter": 128, "WindowWidth": 256}
NAMES_A_PATIENT = "Canary^Anna"

NATIVE = [
    uids.ImplicitVRLittleEndian,
    uids.ExplicitVRLittleEndian,
    uids.ExplicitVRBigEndian,
    uids.DeflatedExplicitVRLittleEndian,
]
COMPRESSED = [uids.RLELossless, uids.JPEGLSLossless, uids.JPEG2000Lossless]
JPEG_LOSSLESS = {
    uids.JPEGLossless: gdcm.TransferSyntax.JPEGLosslessProcess14,
    uids.JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
}


def test_the_published_name_loads_its_module_when_it_is_asked_for() -> None:
    script = (
        "import sys, lapvqa.dicom; assert 'lapvqa.dicom.render' not in sys.modules; "
        "from lapvqa.dicom import read_image; import lapvqa.dicom.render as render; "
        "assert read_image is render.read_image"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    with pytest.raises(AttributeError, match="no attribute 'decode'"):
        lapvqa.dicom.decode  # noqa: B018


def grey_of(values: NDArray[Any], top: int) -> NDArray[np.int64]:
    """The byte that shows each value where 0 is black and ``top`` white, rounded once."""
    return np.floor(values.astype(np.float64) * 255 / top + 0.5).astype(np.int64)


def content(data: bytes) -> NDArray[np.int64]:
    image = read_image(data)
    assert image.fit.scale == 1
    assert not image.pixels[SIDE:].any()
    assert not image.pixels[:, SIDE:].any()
    return image.pixels[:SIDE, :SIDE].astype(np.int64)


def compressed(dataset: Dataset, syntax: uids.UID, tmp_path: Path) -> bytes:
    if syntax not in JPEG_LOSSLESS:
        dataset.compress(syntax)
        return bytes_of(dataset)
    (tmp_path / "native.dcm").write_bytes(bytes_of(dataset))
    reader = gdcm.ImageReader()
    reader.SetFileName(str(tmp_path / "native.dcm"))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(JPEG_LOSSLESS[syntax]))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(tmp_path / "compressed.dcm"))
    assert writer.Write()
    return (tmp_path / "compressed.dcm").read_bytes()


def jpeg_file(pixels: NDArray[np.uint8], **attributes: Any) -> bytes:
    dataset = dataset_of(pixels, bits=8, **attributes)
    flags = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
    _, encoded = cv2.imencode(".jpg", pixels[..., ::-1] if pixels.ndim == 3 else pixels, flags)
    dataset.file_meta.TransferSyntaxUID = uids.JPEGBaseline8Bit
    dataset.PixelData = encapsulate([encoded.tobytes()])
    dataset["PixelData"].is_undefined_length = True
    return bytes_of(dataset)


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_native_pixels_are_shown_exactly(syntax: uids.UID, bits: int) -> None:
    pixels = ramp(bits).astype(np.uint8 if bits == 8 else np.uint16)
    window = {"WindowCenter": 2 ** (bits - 1), "WindowWidth": 2**bits}
    found = content(dicom_bytes(pixels, bits=bits, syntax=syntax, **window))
    assert np.abs(found - grey_of(pixels, 2**bits - 1)).max() <= (0 if bits == 8 else 1)
    if bits == 12:  # by hand: 0, 2048, 4095 of 4095 are bytes 0, 128, 255
        by_hand = {0: 0, 2048: 128, 4095: 255}
        for value, byte in by_hand.items():
            nearest = np.unravel_index(np.abs(pixels.astype(int) - value).argmin(), pixels.shape)
            assert abs(int(found[nearest]) - byte) <= 1


@pytest.mark.parametrize("syntax", [*COMPRESSED, *JPEG_LOSSLESS], ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_lossless_compression_changes_nothing(syntax: uids.UID, bits: int, tmp_path: Path) -> None:
    pixels = ramp(bits).astype(np.uint8 if bits == 8 else np.uint16)
    window = {"WindowCenter": 2 ** (bits - 1), "WindowWidth": 2**bits}
    dataset = dataset_of(pixels, bits=bits, **window)
    plain = content(bytes_of(dataset))
    data = compressed(dataset, syntax, tmp_path)
    assert dcmread(BytesIO(data)).file_meta.TransferSyntaxUID == syntax
    assert np.array_equal(content(data), plain)


@pytest.mark.parametrize("syntax", [uids.ExplicitVRLittleEndian, uids.RLELossless])
def test_signed_pixels_with_rescale(syntax: uids.UID, tmp_path: Path) -> None:
    pixels = (ramp(12).astype(np.int16) - 2048).astype(np.int16)
    dataset = dataset_of(
        pixels, RescaleSlope=2, RescaleIntercept=100, WindowCenter=100, WindowWidth=8191,
        VOILUTFunction="LINEAR_EXACT",
    )  # fmt: skip
    data = (
        bytes_of(dataset)
        if syntax.is_little_endian and not syntax.is_compressed
        else compressed(dataset, syntax, tmp_path)
    )
    expected = (pixels.astype(float) * 2 + 100 - 100) / 8191 + 0.5
    assert np.abs(content(data) - np.clip(expected, 0, 1) * 255).max() <= 0.51


def test_bits_above_those_stored_are_ignored() -> None:
    pixels = ramp(12)
    overlaid = pixels | (np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) << 12)
    plain = content(dicom_bytes(pixels, **WHOLE_RANGE))
    assert np.array_equal(content(dicom_bytes(overlaid, **WHOLE_RANGE)), plain)


def test_monochrome1_is_inverted_and_the_check_would_see_it_if_not() -> None:
    pixels = ramp(12)
    one = content(dicom_bytes(pixels, PhotometricInterpretation="MONOCHROME1", **WHOLE_RANGE))
    two = content(dicom_bytes(pixels, **WHOLE_RANGE))
    assert np.array_equal(one, 255 - two)
    assert not np.array_equal(one, two)


def test_bytes_written_as_big_endian_words_are_put_right() -> None:
    pixels = ramp(8).astype(np.uint8)
    dataset = dataset_of(pixels, bits=8, syntax=uids.ExplicitVRBigEndian, **BYTE_RANGE)
    dataset.PixelData = pixels.view(">u2").astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    assert np.array_equal(pixel_array(BytesIO(bytes_of(dataset))), pixels)  # pydicom agrees
    assert np.array_equal(content(bytes_of(dataset)), pixels)


def test_jpeg_baseline_is_close_to_what_was_encoded() -> None:
    pixels = cv2.GaussianBlur(ramp(8).astype(np.uint8), (0, 0), 3)
    found = content(jpeg_file(pixels, **BYTE_RANGE))
    assert np.abs(found - pixels.astype(np.int64)).max() <= 3


@pytest.mark.parametrize("side", [378, 756])
def test_an_odd_length_before_the_pixels_does_not_matter(side: int) -> None:
    pixels = ramp(12, rows=side, cols=side)
    plain = dicom_bytes(pixels, ViewPosition="PA", **WHOLE_RANGE)
    place = plain.index(b"CS\x02\x00PA")
    odd = plain[: place + 2] + b"\x01\x00P" + plain[place + 6 :]
    assert np.array_equal(read_image(odd).pixels, read_image(plain).pixels)


def extended_jpeg() -> Dataset:
    """The doctor's sample of 12-bit JPEG, 64 x 64."""
    sample = next(one for one in self_test.SAMPLES if one.file == "jpeg_extended_12")
    return dcmread(BytesIO(self_test.data_of(sample)))


def test_jpeg_of_12_bits_is_read_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    found = read_image(bytes_of(extended_jpeg()))
    expected = read_image(dicom_bytes(self_test.pattern(12)))
    assert found.meta.bits_stored == 12
    assert np.abs(found.pixels.astype(int) - expected.pixels).max() <= 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_jpeg_of_12_bits_that_is_cut_is_turned_away(share: float) -> None:
    dataset = extended_jpeg()
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    dataset.PixelData = encapsulate([frame[: int(len(frame) * share)]])
    with pytest.raises(DicomError) as caught:
        read_image(bytes_of(dataset))
    assert caught.value.reason == Reason.DECODE_FAILED


def test_jpeg_of_12_bits_without_its_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gdcm", None)  # what an absent package looks like
    with pytest.raises(DicomError) as caught:
        read_image(bytes_of(extended_jpeg()))
    assert caught.value.reason == Reason.DECODER_MISSING


def test_colour_becomes_its_luma_and_is_shown_as_it_is() -> None:
    red = ramp(8).astype(np.uint8)
    green, blue = red.T.copy(), np.full_like(red, 40)
    rgb = cv2.GaussianBlur(np.stack([red, green, blue], axis=-1), (0, 0), 3)
    expected = (rgb @ np.array([0.299, 0.587, 0.114])).astype(np.float64)
    planar = np.ascontiguousarray(np.moveaxis(rgb, -1, 0))
    by_plane = dataset_of(rgb, bits=8, PlanarConfiguration=1)
    by_plane.PixelData = planar.tobytes()
    for data, tolerance in (
        (dicom_bytes(rgb, bits=8), 2),
        (bytes_of(by_plane), 2),
        (jpeg_file(rgb, PhotometricInterpretation="YBR_FULL"), 6),
    ):
        assert np.abs(content(data) - expected).max() <= tolerance


def test_large_and_oblong_images_keep_aspect_and_orientation() -> None:
    pixels = ramp(12, rows=1500, cols=1000)
    image = read_image(dicom_bytes(pixels, **WHOLE_RANGE))
    assert (image.fit.native_rows, image.fit.native_cols) == (1500, 1000)
    assert image.fit.scale == pytest.approx(378 / 1500)
    blocks = grey_of(pixels, 4095)
    for x, y in ((10, 10), (990, 10), (700, 200), (10, 1490)):
        stored = image.fit.to_stored([[x, y, x + 1, y + 1]])[0].astype(int)
        assert abs(int(image.pixels[stored[1], stored[0]]) - blocks[y, x]) <= 3


def test_meta_holds_what_the_header_says() -> None:
    found = read_image(dicom_bytes(ramp(), ViewPosition="ap ", StudyDate="1993.08.22"))
    assert found.meta.view == "AP"
    assert found.meta.study_date == "19930822"
    assert found.meta.study_time == "101500"
    assert (found.meta.bits_stored, found.meta.photometric) == (12, "MONOCHROME2")
    assert found.voi == "percentile"
    strange = read_image(dicom_bytes(ramp(), ViewPosition="CANARY", StudyDate="x", StudyTime="y"))
    assert (strange.meta.view, strange.meta.study_date, strange.meta.study_time) == ("", "", "")


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


def without_pixels() -> bytes:
    dataset = dataset_of(ramp())
    del dataset.PixelData
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def cut_stream(syntax: uids.UID) -> bytes:
    """A whole DICOM file around a compressed stream that ends too early."""
    dataset = dataset_of(ramp())
    dataset.compress(syntax)
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    dataset.PixelData = encapsulate([frame[: len(frame) // 2]])
    return bytes_of(dataset)


BAD_FILES: dict[str, tuple[Reason, Callable[[], bytes]]] = {
    "empty": (Reason.NOT_DICOM, lambda: b""),
    "text": (Reason.NOT_DICOM, lambda: b"FINAL REPORT " * 100),
    "png": (Reason.NOT_DICOM, lambda: b"\x89PNG\r\n\x1a\n" + bytes(1000)),
    "the begin of a data set, then none": (
        Reason.MISSING_PREAMBLE,
        lambda: b"\x08\0\x05\0CS\x0a\0ISO_IR 100" + b"FINAL REPORT" * 40,
    ),
    "a length, then none": (Reason.MISSING_PREAMBLE, lambda: b"\x08\0\0\0" + b"\xff" * 400),
    "cut in the pixels": (Reason.TRUNCATED, lambda: cut(dicom_bytes(ramp()), 0.6)),
    "RLE, file cut": (
        Reason.TRUNCATED,
        lambda: cut(bytes_of(_compressed_in_memory(uids.RLELossless)), 0.6),
    ),
    "RLE, stream cut": (Reason.DECODE_FAILED, lambda: cut_stream(uids.RLELossless)),
    "JPEG-LS, stream cut": (Reason.DECODE_FAILED, lambda: cut_stream(uids.JPEGLSLossless)),
    "JPEG 2000, stream cut": (Reason.DECODE_FAILED, lambda: cut_stream(uids.JPEG2000Lossless)),
    "header only": (Reason.NO_PIXEL_DATA, without_pixels),
    "pixels too long": (
        Reason.WRONG_LENGTH,
        lambda: bytes_of(_with_pixel_data(dataset_of(ramp()), bytes(range(256)) * 1200)),
    ),
    "several frames": (Reason.MULTI_FRAME, lambda: dicom_bytes(ramp(), NumberOfFrames=2)),
    "CT": (Reason.NOT_A_RADIOGRAPH, lambda: dicom_bytes(ramp(), Modality="CT")),
    "mammogram": (Reason.NOT_A_RADIOGRAPH, lambda: dicom_bytes(ramp(), Modality="MG")),
    "other image": (
        Reason.NOT_A_RADIOGRAPH,
        lambda: dicom_bytes(ramp(), Modality="OT", SOPClassUID=uids.VLEndoscopicImageStorage),
    ),
    "report": (
        Reason.COMPANION,
        lambda: dicom_bytes(ramp(), Modality="OT", SOPClassUID=uids.BasicTextSRStorage),
    ),
    "palette": (
        Reason.UNSUPPORTED_PHOTOMETRIC,
        lambda: dicom_bytes(ramp(), PhotometricInterpretation="PALETTE COLOR"),
    ),
    "32 bits": (Reason.UNSUPPORTED_BITS, lambda: dicom_bytes(ramp().astype(np.uint32), bits=32)),
    "video": (Reason.UNSUPPORTED_SYNTAX, lambda: bytes_of(_video())),
    "blank": (Reason.CONSTANT_IMAGE, lambda: dicom_bytes(np.full((100, 100), 7, np.uint16))),
    "window beside the image": (
        Reason.CONSTANT_IMAGE,
        lambda: dicom_bytes(ramp(), WindowCenter=50_000, WindowWidth=10),
    ),
    "thumbnail": (Reason.TOO_SMALL, lambda: dicom_bytes(ramp(rows=40, cols=40))),
    "strip": (Reason.TOO_SMALL, lambda: dicom_bytes(ramp(rows=100, cols=4000))),
    "bomb": (Reason.TOO_LARGE, lambda: bytes_of(_bomb())),
    "more bits than allocated": (Reason.BAD_HEADER, lambda: dicom_bytes(ramp(), BitsStored=17)),
    "LUT that lies": (Reason.BAD_HEADER, lambda: bytes_of(_short_lut())),
}


def _compressed_in_memory(syntax: uids.UID) -> Dataset:
    dataset = dataset_of(ramp())
    dataset.compress(syntax)
    return dataset


def _with_pixel_data(dataset: Dataset, data: bytes) -> Dataset:
    dataset.PixelData = data
    return dataset


def _video() -> Dataset:
    dataset = dataset_of(ramp())
    dataset.file_meta.TransferSyntaxUID = uids.MPEG2MPML
    dataset.PixelData = encapsulate([b"\0" * 100])
    return dataset


def _bomb() -> Dataset:
    dataset = _compressed_in_memory(uids.JPEG2000Lossless)
    dataset.Rows = dataset.Columns = 46341
    return dataset


def _short_lut() -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [4096, 0, 12])
    item.add_new("LUTData", "US", [1, 2, 3])
    dataset = dataset_of(ramp())
    dataset.VOILUTSequence = [item]
    return dataset


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_turned_away_with_their_reason(name: str) -> None:
    reason, make = BAD_FILES[name]
    with pytest.raises(DicomError) as caught:
        read_image(make())
    assert caught.value.reason == reason, caught.value.message
    assert Reason(caught.value.reason).remedy


def test_a_file_cut_anywhere_is_turned_away() -> None:
    whole = dicom_bytes(ramp(rows=70, cols=70), **WHOLE_RANGE)
    header = len(whole) - 2 * 70 * 70
    reasons = set()
    for length in [*range(132, header, 7), *range(header, len(whole), 997), len(whole) - 1]:
        with pytest.raises(DicomError) as caught:
            read_image(whole[:length])
        reasons.add(caught.value.reason)
    assert Reason.TRUNCATED in reasons
    assert reasons <= {
        Reason.TRUNCATED, Reason.NO_PIXEL_DATA, Reason.BAD_HEADER, Reason.UNSUPPORTED_SYNTAX,
        Reason.NOT_A_RADIOGRAPH,  # cut within the SOP class
    }  # fmt: skip


def test_every_reason_has_a_remedy() -> None:
    assert all(reason.remedy for reason in Reason)


@pytest.mark.parametrize("attribute", ["PatientName", "PatientID", "StudyDescription"])
def test_no_error_names_a_patient(attribute: str) -> None:
    for _, make in BAD_FILES.values():
        data = make()
        try:
            dataset = dcmread(BytesIO(data))
        except Exception:  # noqa: BLE001 - what pydicom cannot read cannot be given a name
            continue
        setattr(dataset, attribute, NAMES_A_PATIENT)
        stream = BytesIO()
        dataset.save_as(stream)
        with pytest.raises(DicomError) as caught:
            read_image(stream.getvalue())
        assert "Canary" not in str(caught.value)


def test_mutated_files_are_read_or_turned_away_but_never_crash() -> None:
    rng = np.random.default_rng(0)
    originals = [
        dicom_bytes(ramp(rows=80, cols=80), **WHOLE_RANGE),
        jpeg_file(ramp(8, rows=80, cols=80).astype(np.uint8)),
        *(
            bytes_of(_small_compressed(syntax))
            for syntax in (uids.RLELossless, uids.JPEGLSLossless)
        ),
    ]
    outcomes = set()
    for number in range(400):
        data = bytearray(originals[number % len(originals)])
        for _ in range(int(rng.integers(1, 6))):
            data[int(rng.integers(132, min(len(data), 2000)))] = int(rng.integers(0, 256))
        try:
            image = read_image(bytes(data))
            assert image.pixels.shape == (384, 384)
            outcomes.add("read")
        except DicomError as error:
            outcomes.add(error.reason)
    assert "read" in outcomes
    assert len(outcomes) > 3


def _small_compressed(syntax: uids.UID) -> Dataset:
    dataset = dataset_of(ramp(rows=80, cols=80))
    dataset.compress(syntax)
    return dataset
