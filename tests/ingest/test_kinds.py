"""What ingest takes of an archive by kind, colour and view, under each parameter."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_dicom import dataset_of, dicom_bytes, small_image, write_project
from pydicom import uid as uids
from test_ingest import reasons, run, said, table, write_tree

from lapvqa.dicom.reasons import Reason
from lapvqa.errors import RejectBudgetError
from lapvqa.identity import Ids, Keyring
from lapvqa.ingest.one_file import RESULTS, Context, Task, process_file
from lapvqa.project import Project
from lapvqa.storage import sha256_file

KEY = b"0123456789abcdef"
FREE = {"overall": 1.0, "per_folder": 1.0}


def image(seed: int, *, study: int = 1, colour: bool = False, **attributes: Any) -> bytes:
    pixels = small_image(seed)
    if colour:
        pixels = np.stack([pixels, pixels[::-1], pixels], axis=-1)
    return dicom_bytes(
        pixels, bits=8, SOPInstanceUID=f"1.2.3.{seed}", StudyInstanceUID=f"1.2.{study}",
        PatientID=f"P{study}", **attributes,
    )  # fmt: skip


def without_pixels(seed: int, **attributes: Any) -> bytes:
    dataset = dataset_of(small_image(seed), bits=8, SOPInstanceUID=f"1.2.3.{seed}", **attributes)
    dataset.StudyInstanceUID, dataset.PatientID = "1.2.1", "P1"
    del dataset.PixelData
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def read_one(folder: Path, data: bytes) -> dict[str, Any]:
    path = folder / "one.dcm"
    path.write_bytes(data)
    status = path.stat()
    task = Task("one.dcm", status.st_size, status.st_mtime_ns, Ids(), is_picture=False)
    result = process_file(task, Context(folder, Keyring(KEY), 0))
    return {name: getattr(result, name) for name in RESULTS.names}


def test_a_report_object_keeps_its_ids_hashed_and_is_no_image(tmp_path: Path) -> None:
    sr = {"SOPClassUID": uids.BasicTextSRStorage, "Modality": "SR"}
    row = read_one(tmp_path, without_pixels(1, AccessionNumber="A 77/3", **sr))
    keyring = Keyring(KEY)
    assert (row["reason"], row["companion"]) == (Reason.COMPANION, "structured_report")
    assert (row["study_key"], row["patient_key"]) == (keyring.study("1.2.1"), keyring.patient("P1"))
    assert row["accession_key"] == keyring.accession("A 77/3")
    assert len({keyring.accession("7"), keyring.study("7"), keyring.patient("7")}) == 3
    assert "A 77/3" not in str(row)
    assert row["pixels_sha256"] is None


def test_an_image_says_what_it_is_and_which_rule_told_its_view(tmp_path: Path) -> None:
    data = image(1, ViewPosition="", ProtocolName="Kanarienvogel PA", WindowWidth=0,
                 WindowCenter=4, AccessionNumber="")  # fmt: skip
    row = read_one(tmp_path, data)
    assert (row["reason"], row["companion"], row["accession_key"]) == (None, None, None)
    assert (row["modality"], row["for_processing"]) == ("DX", False)
    assert (row["view"], row["view_source"], row["note"]) == ("PA", "description", "window ignored")
    assert "Kanarienvogel" not in str(row)


def mixed(folder: Path) -> Path:
    return write_tree(
        folder,
        {
            "a/dx.dcm": image(1),
            "a.txt": "FINDINGS: Clear.",
            "b/ot.dcm": image(2, study=2, Modality="OT"),
            "c/sc.dcm": image(
                3, study=3, Modality="DX", SOPClassUID=uids.SecondaryCaptureImageStorage,
                ConversionType="WSD",
            ),
            "d/colour.dcm": image(4, study=4, colour=True),
            "e/nothing.dcm": image(5, study=5, Modality="", SOPClassUID="1.2.999.1"),
            "f/rf.dcm": image(
                6, study=6, Modality="RF", SOPClassUID=uids.XRayRadiofluoroscopicImageStorage
            ),
            "g/ct.dcm": image(7, study=7, Modality="CT", SOPClassUID=uids.CTImageStorage),
            "h/endoscopy.dcm": image(
                8, study=8, colour=True, Modality="ES", SOPClassUID=uids.VLEndoscopicImageStorage
            ),
            "i/sr.dcm": without_pixels(9, Modality="SR", SOPClassUID=uids.EnhancedSRStorage),
        },
    )  # fmt: skip


def test_only_radiographs_in_grey_are_taken_unless_more_is_asked_for(tmp_path: Path) -> None:
    archive = mixed(tmp_path / "archive")
    project = write_project(tmp_path / "project", archive, reject_budget=FREE)
    run(project)
    assert len(table(project.images)) == 1
    assert {path: why for path, why in reasons(project).items() if path.endswith(".dcm")} == {
        "b/ot.dcm": "not_a_radiograph",
        "c/sc.dcm": "not_a_radiograph",
        "d/colour.dcm": "colour",
        "e/nothing.dcm": "not_a_radiograph",
        "f/rf.dcm": "not_a_radiograph",
        "g/ct.dcm": "not_a_radiograph",
        "h/endoscopy.dcm": "not_a_radiograph",
    }
    write_project(
        tmp_path / "project", archive, reject_budget=FREE, colour="accept",
        modalities=["CR", "DX", "RF", "OT", "SC", "none"],
    )  # fmt: skip
    run(project)
    assert "known from before, 0 new" in said(project)  # the parameters read no file again
    taken = {path for path in reasons(project) if path.endswith(".dcm")}
    assert taken == {"g/ct.dcm", "h/endoscopy.dcm"}


RAW = {
    "SOPClassUID": uids.DigitalXRayImageStorageForProcessing,
    "PresentationIntentType": "FOR PROCESSING",
}


def test_a_raw_twin_of_every_image_breaks_no_budget(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {"s0.txt": "FINDINGS: Clear."}
    for study in range(25):
        files[f"s{study}/shown.dcm"] = image(2 * study + 1, study=study)
        files[f"s{study}/raw.dcm"] = image(2 * study + 2, study=study, **RAW)
    project = write_project(tmp_path / "project", write_tree(tmp_path / "archive", files))
    counts = run(project)
    assert (counts["images"], counts["files_rejected"]) == (25, 25)
    assert set(reasons(project).values()) == {"for_processing"}


def test_a_bone_suppressed_twin_is_no_training_image_and_breaks_no_budget(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {"s0.txt": "FINDINGS: Clear."}
    made = {"ImageType": ["DERIVED", "PRIMARY"], "SeriesDescription": "CXR Bone Suppression"}
    for study in range(4):
        files[f"s{study}/shown.dcm"] = image(2 * study + 1, study=study)
        files[f"s{study}/made.dcm"] = image(2 * study + 2, study=study, **made)
    project = write_project(tmp_path / "project", write_tree(tmp_path / "archive", files))
    counts = run(project)
    assert (counts["images"], counts["files_rejected"]) == (4, 4)
    assert set(reasons(project).values()) == {"post_processed"}


def test_raw_images_without_a_twin_count_against_the_budget(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {"s0.txt": "FINDINGS: Clear."}
    for study in range(10):
        files[f"s{study}/one.dcm"] = image(study + 1, study=study, **(RAW if study > 7 else {}))
    project = write_project(tmp_path / "project", write_tree(tmp_path / "archive", files))
    with pytest.raises(RejectBudgetError, match="2 of 10 files"):
        run(project)


@pytest.fixture
def seen(tmp_path: Path) -> tuple[Path, dict[str, bytes]]:
    """Studies whose images say their view in different ways, or do not."""
    files = {
        "s1/one.dcm": image(1, study=1, ViewPosition="PA"),
        "s2/one.dcm": image(2, study=2, ViewPosition=""),
        "s2/two.dcm": image(3, study=2, ViewPosition=""),
        "s3/one.dcm": image(4, study=3, ViewPosition="", PatientOrientation=["L", "F"]),
        "s3/two.dcm": image(5, study=3, ViewPosition="", PatientOrientation=["P", "F"]),
        "s4/one.dcm": image(6, study=4, ViewPosition="", StudyDescription="CHEST PA"),
        "s5/one.dcm": image(7, study=5, ViewPosition="", StudyDescription="CHEST PA"),
        "s5/two.dcm": image(8, study=5, ViewPosition="", StudyDescription="CHEST PA"),
    }
    reports = {f"s{study}.txt": "FINDINGS: Clear." for study in range(1, 6)}
    return write_tree(tmp_path / "archive", {**files, **reports}), files


def views_of(project: Project, files: dict[str, bytes], folder: Path) -> dict[str, Any]:
    rows = table(project.images)
    found = {row["file_sha256"]: (row["view"], row["view_source"]) for row in rows}
    return {path: found.get(sha256_file(folder / path)) for path in files}


def test_an_unknown_view_is_kept_and_is_not_frontal(
    tmp_path: Path, seen: tuple[Path, dict[str, bytes]]
) -> None:
    folder, files = seen
    project = write_project(tmp_path / "project", folder)
    run(project)
    found = views_of(project, files, folder)
    assert found == {
        "s1/one.dcm": ("PA", "position"),
        "s2/one.dcm": ("", None),
        "s2/two.dcm": ("", None),
        "s3/one.dcm": ("FRONTAL", "orientation"),
        "s3/two.dcm": ("LATERAL", "orientation"),
        "s4/one.dcm": ("PA", "study"),
        # The study has two images, and may be called by one of them.
        "s5/one.dcm": ("", None),
        "s5/two.dcm": ("", None),
    }
    assert "4 of 8 images are of unknown view" in said(project)
    facts = project.record("ingest").read_text()
    assert '"orientation": 2' in facts
    assert '"unknown": 4' in facts


def test_an_unknown_view_is_frontal_where_a_parameter_says_so(
    tmp_path: Path, seen: tuple[Path, dict[str, bytes]]
) -> None:
    folder, files = seen
    project = write_project(tmp_path / "project", folder, unknown_view="frontal")
    run(project)
    found = views_of(project, files, folder)
    assert found["s2/one.dcm"] == found["s5/two.dcm"] == ("FRONTAL", "assumed")
    assert found["s3/two.dcm"] == ("LATERAL", "orientation")
    write_project(tmp_path / "project", folder, unknown_view="frontal", views="frontal")
    assert run(project)["images"] == 7
    write_project(tmp_path / "project", folder, views="frontal")
    assert run(project)["images"] == 3
    assert set(reasons(project).values()) >= {"view_unknown", "lateral_not_asked"}
    assert "known from before, 0 new" in said(project)


def test_other_parts_by_their_words_are_no_chests_and_unknown_ones_are_counted(
    tmp_path: Path,
) -> None:
    said_parts = ["Knie rechts", "LWS ap", "Hand dp", "ABDOMEN AP", "Becken", "XR SHOULDER",
                  "RX RODILLA", "Thorax pa", "AP liegend"]  # fmt: skip
    files: dict[str, bytes | str] = {"s7.txt": "FINDINGS: Clear."}
    for study, words in enumerate(said_parts):
        files[f"s{study}/a.dcm"] = image(study + 1, study=study, SeriesDescription=words)
    spine = image(99, study=99, BodyPartExamined="CHEST", SeriesDescription="LSPINE AP")
    archive = write_tree(tmp_path / "archive", {**files, "s99/a.dcm": spine})
    project = write_project(tmp_path / "project", archive, reject_budget=FREE)
    run(project)
    rejected = {path for path, why in reasons(project).items() if why == "not_a_chest"}
    assert rejected == {f"s{study}/a.dcm" for study in (*range(7), 99)}
    assert "1 of 2 images do not say which part of the body they show" in said(project)


def test_pixels_of_two_patients_in_two_splits_are_counted(tmp_path: Path) -> None:
    """One image under eight patients' ids, of which the seed puts some into other splits."""
    files: dict[str, bytes | str] = {"s0.txt": "FINDINGS: Clear."}
    for study in range(8):
        files[f"s{study}/a.dcm"] = dicom_bytes(
            small_image(1), bits=8, SOPInstanceUID=f"1.2.3.{study}",
            StudyInstanceUID=f"1.2.{study}", PatientID=f"P{study}",
        )  # fmt: skip
    files["s8/a.dcm"] = image(8, study=8)
    archive = write_tree(tmp_path / "archive", files)
    split = {"validate": 0.4, "test": 0.4, "seed": 0}
    project = write_project(tmp_path / "project", archive, split=split)
    run(project)
    assert len({row["split"] for row in table(project.studies)}) > 1
    assert "8 images have the pixels of an image of another patient" in said(project)
    one = {"validate": 0.0, "test": 0.0, "seed": 0}
    run(write_project(tmp_path / "project", archive, split=one))
    assert len(table(project.images)) == 9
    assert "pixels of an image" not in said(project)
