"""Image files to stored pixels; unreadable files are counted, never dropped in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lapvqa.datasets.labelled import ProbeDataset, Rows, carve_validation, key
from lapvqa.datasets.probe_images import read_image
from lapvqa.errors import SourceError
from lapvqa.images.geometry import fit_image

GREY = np.tile(np.arange(0, 250, 5, dtype=np.uint8), (40, 1))


def rows(patients: list[str], prefix: str = "") -> Rows:
    names = tuple(f"{prefix}{i}.png" for i in range(len(patients)))
    return Rows(
        images=names,
        samples=names,
        patients=tuple(patients),
        places=tuple(f"x.csv, line {i + 2}" for i in range(len(patients))),
        targets=np.zeros((len(patients), 2), dtype=np.int8),
    )


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
def test_every_8_bit_form_of_the_same_image_gives_the_same_pixels(tmp_path: Path, mode: str):
    Image.fromarray(GREY).convert(mode).save(tmp_path / "image.png")
    found = read_image(tmp_path / "image.png").pixels
    assert found.shape == (384, 384)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, fit_image(GREY)[0])


def test_transparency_does_not_darken(tmp_path: Path):
    image = Image.fromarray(GREY).convert("RGBA")
    image.putalpha(Image.fromarray(np.full_like(GREY, 17)))
    image.save(tmp_path / "image.png")
    np.testing.assert_array_equal(read_image(tmp_path / "image.png").pixels, fit_image(GREY)[0])


def test_missing_truncated_foreign_and_deep_images_are_unreadable(tmp_path: Path):
    Image.fromarray(GREY).save(tmp_path / "good.png")
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    damaged = bytearray(whole)
    damaged[len(damaged) // 2] ^= 0xFF
    (tmp_path / "damaged.png").write_bytes(bytes(damaged))
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty.png").write_bytes(b"")
    Image.fromarray(GREY.astype(np.uint16) * 200).save(tmp_path / "deep.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("none", "half", "damaged", "text", "empty", "deep", "folder"):
        assert read_image(tmp_path / f"{name}.png") is None, name


def test_unreadable_images_leave_their_split_and_keep_alignment():
    dataset = ProbeDataset(
        "d", ("a", "b"), rows(["p"] * 300), rows(["q"] * 50, "v"), rows(["r"] * 50, "t")
    )
    readable = np.ones(400, dtype=bool)
    readable[[0, 349, 399]] = False
    kept = dataset.keep(readable)
    assert (len(kept.train), len(kept.validate), len(kept.test)) == (299, 49, 49)
    assert kept.images == tuple(np.array(dataset.images)[readable])


def test_more_than_one_percent_unreadable_is_an_error_that_names_a_line():
    dataset = ProbeDataset(
        "d", ("a", "b"), rows(["p"] * 300), rows(["q"] * 50, "v"), rows(["r"] * 50, "t")
    )
    readable = np.ones(400, dtype=bool)
    readable[7:12] = False
    with pytest.raises(SourceError, match=r"5 of 400 .* one is listed at x.csv, line 9"):
        dataset.keep(readable)


@given(st.lists(st.integers(0, 30), min_size=2, max_size=80), st.randoms())
@settings(max_examples=100, deadline=None)
def test_carving_is_by_patient_whatever_the_order(numbers: list[int], random) -> None:
    patients = [f"p{number}" for number in numbers]
    if len(set(patients)) < 2:
        return
    train, validate = carve_validation(rows(patients))
    assert not set(train.patients) & set(validate.patients)
    assert len(train) + len(validate) == len(patients)
    assert len(train) >= 1
    assert len(validate) >= 1
    random.shuffle(patients)
    assert set(carve_validation(rows(patients))[1].patients) == set(validate.patients)


def test_keys_differ_between_datasets():
    assert key("CheXpert", "1") != key("NIH ChestX-ray14", "1")
