"""A film is known by its decoded values, whatever form and UID it was delivered in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from jobs import make_job
from made_dicom import bytes_of, dataset_of, dicom_bytes, ramp, small_image, write_project
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid as uids

from lapvqa import inventory, schemas, storage
from lapvqa.dicom.picture import read_picture
from lapvqa.dicom.render import read_image
from lapvqa.ingest import ingest
from lapvqa.machine import load_machine
from lapvqa.params import load_params
from lapvqa.project import Project

FORMS = (uids.RLELossless, uids.JPEGLSLossless, uids.JPEG2000Lossless)


def digest(pixels: NDArray[np.uint16], **attributes: object) -> str:
    return read_image(dicom_bytes(pixels, **attributes)).decoded_sha256


def test_the_digest_is_of_values_and_size_and_of_nothing_else() -> None:
    pixels = ramp(12, rows=90, cols=80)
    own = digest(pixels)
    assert digest(pixels, PhotometricInterpretation="MONOCHROME1") == own
    assert digest(pixels, WindowCenter=900, WindowWidth=300) == own
    assert digest(pixels, bits=16) == own
    changed = pixels.copy()
    changed[30, 20] ^= 1
    assert digest(changed) != own
    assert digest(np.ascontiguousarray(pixels.reshape(80, 90))) != own


def test_values_below_zero_are_not_taken_for_high_ones() -> None:
    pixels = ramp(16, rows=90, cols=80)
    assert digest(pixels, bits=16) != digest(pixels.view(np.int16), bits=16)


def test_a_picture_has_the_digest_of_the_dicom_file_with_its_values(tmp_path: Path) -> None:
    pixels = ramp(16, rows=90, cols=80)
    Image.fromarray(pixels).save(tmp_path / "film.png")
    picture = read_picture((tmp_path / "film.png").read_bytes())
    assert picture.decoded_sha256 == digest(pixels, bits=16)


@pytest.fixture
def delivered(tmp_path: Path) -> Project:
    """Films of patient 1 in several forms, each under UIDs of its own; one under patient 2."""
    folder = tmp_path / "archive"
    folder.mkdir()
    film = small_image(1)
    for number, syntax in enumerate((uids.ExplicitVRLittleEndian, *FORMS)):
        dataset = dataset_of(
            film, bits=8, SOPInstanceUID=f"1.2.3.{number}", StudyInstanceUID=f"1.2.{number}"
        )
        if syntax.is_compressed:
            dataset.compress(syntax, generate_instance_uid=False)
        (folder / f"{number}.dcm").write_bytes(bytes_of(dataset))
    for name, pixels, patient in (("other", small_image(2), "1"), ("theirs", film, "2")):
        uid = f"1.2.9.{patient}"
        content = dicom_bytes(
            pixels, bits=8, PatientID=f"patient {patient}",
            SOPInstanceUID=f"{uid}.1", StudyInstanceUID=uid,
        )  # fmt: skip
        (folder / f"{name}.dcm").write_bytes(content)
    (folder / "1.2.0.txt").write_text("FINDINGS: none.")
    (folder / "1.2.9.1.txt").write_text("FINDINGS: none.")
    budget = {"overall": 1.0, "per_folder": 1.0, "folder_min_files": 100}
    return write_project(tmp_path / "project", folder, workers=1, reject_budget=budget)


def test_a_film_that_comes_again_in_another_form_is_taken_once(delivered: Project) -> None:
    params = load_params(delivered.params)
    for stage, function, section in (
        ("inventory", inventory.run, params.inventory), ("ingest", ingest.run, params.ingest),
    ):  # fmt: skip
        delivered.work_dir(stage).mkdir(parents=True, exist_ok=True)
        function(section, make_job(delivered, load_machine(delivered)))
    images = storage.read_table(delivered.images, schemas.IMAGES, made_by="ingest").to_pylist()
    rejects = storage.read_table(delivered.rejects, schemas.REJECTS, made_by="ingest").to_pylist()
    again = {row["file"]: row["reason"] for row in rejects if row["kind"] == "file"}
    assert again == dict.fromkeys(("1.dcm", "2.dcm", "3.dcm"), "duplicate_film")
    films = [row["decoded_sha256"] for row in images]
    # The other patient's copy stays: whose it is, nobody knows; the firewall keeps them apart.
    assert sorted(map(films.count, films)) == [1, 2, 2]
