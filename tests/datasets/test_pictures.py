"""Image files to stored pixels: one rendering, that of ingest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lapvqa.datasets.pictures import read_image, read_or_none
from lapvqa.dicom.picture import read_picture
from lapvqa.errors import DicomError
from lapvqa.images.geometry import fit_image

GREY = np.tile(np.arange(500, dtype=np.uint16) // 2, (400, 1)).astype(np.uint8)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
def test_every_8_bit_form_of_the_same_image_gives_the_same_pixels(tmp_path: Path, mode: str):
    Image.fromarray(GREY).convert(mode).save(tmp_path / "image.png")
    found = read_or_none(tmp_path / "image.png").pixels
    assert found.shape == (384, 384)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, fit_image(GREY)[0])


def test_transparency_does_not_darken(tmp_path: Path):
    image = Image.fromarray(GREY).convert("RGBA")
    image.putalpha(Image.fromarray(np.full_like(GREY, 17)))
    image.save(tmp_path / "image.png")
    np.testing.assert_array_equal(read_or_none(tmp_path / "image.png").pixels, fit_image(GREY)[0])


def test_missing_truncated_foreign_and_blank_images_are_unreadable(tmp_path: Path):
    Image.fromarray(GREY).save(tmp_path / "good.png")
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    damaged = bytearray(whole)
    damaged[len(damaged) // 2] ^= 0xFF
    (tmp_path / "damaged.png").write_bytes(bytes(damaged))
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty.png").write_bytes(b"")
    Image.fromarray(np.full_like(GREY, 7)).save(tmp_path / "blank.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("none", "half", "damaged", "text", "empty", "blank", "folder"):
        assert read_or_none(tmp_path / f"{name}.png") is None, name


@pytest.mark.parametrize("name", ["colour.png", "palette.png", "colour.jpg", "deep.png"])
def test_a_picture_is_stored_as_ingest_stores_it(tmp_path: Path, name: str):
    path, colours = tmp_path / name, np.stack([GREY, GREY[:, ::-1], GREY // 2], axis=-1)
    image = Image.fromarray(GREY.astype(np.uint16) * 200 if name == "deep.png" else colours)
    (image.quantize(64) if name == "palette.png" else image).save(path)
    stored = read_image(path)
    ingested = read_picture(path.read_bytes())
    np.testing.assert_array_equal(stored.pixels, ingested.pixels)
    assert stored.fit == ingested.fit
    np.testing.assert_array_equal(read_or_none(path).pixels, stored.pixels)


def test_colour_is_luma_of_the_dicom_standard(tmp_path: Path):
    colours = np.random.default_rng(0).integers(0, 256, (378, 378, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "colour.png")
    stored = read_image(tmp_path / "colour.png")
    luma = colours @ np.array([0.299, 0.587, 0.114])
    assert np.abs(stored.pixels[stored.fit.content] - luma).max() <= 0.51


def test_a_missing_file_is_an_error_with_its_reason(tmp_path: Path):
    with pytest.raises(DicomError, match="expected a readable file"):
        read_image(tmp_path / "none.dcm")
