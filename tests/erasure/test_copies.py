"""A patient's film that was edited and stands under another id goes with the patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn_films import draw, edited
from film_edits import KINDS
from made_dicom import dicom_bytes
from small_project import GONE, KEY, bring_up_to_date, place, with_own_archive

from lapvqa import storage
from lapvqa.erasure.erase import archive_files, erase, look, open_journal
from lapvqa.identity import Keyring
from lapvqa.lineage import ledger
from lapvqa.lineage.row_numbers import PATIENT, STUDY, RowNumbers, packed
from lapvqa.project import Project
from lapvqa.schemas import IMAGES, REJECTS

OTHER, STRANGER = "10000003", "10000004"
KEYS = Keyring(KEY.encode())


def add_film(archive: Path, patient: str, number: int, film: np.ndarray) -> None:
    """Add a study of one frontal film to a patient."""
    study = archive / f"files/p10/p{patient}/s{number}"
    study.mkdir()
    data = dicom_bytes(
        np.ascontiguousarray(film), bits=8, SOPInstanceUID=f"1.2.4.{number}",
        StudyInstanceUID=f"1.2.{number}", PatientID=patient, StudyDate="21510115",
        ViewPosition="PA",
    )  # fmt: skip
    (study / f"{number}-aaaaaaaa.dcm").write_bytes(data)
    study.with_suffix(".txt").write_text(f"FINAL REPORT\n FINDINGS: Film {number}.\n")


@pytest.fixture
def copied(read: Path, tmp_path: Path) -> Project:
    """An archive in which another patient has an edited copy, and a third another film."""
    project = with_own_archive(read, tmp_path / "own")
    archive = project.root.parent / "archive"
    film = draw(1)
    add_film(archive, GONE, 60000001, film)
    (tone, *_) = KINDS["tone"].values()
    add_film(archive, OTHER, 60000002, edited(film, tone))
    add_film(archive, STRANGER, 60000003, draw(2))
    bring_up_to_date(project)
    return project


def test_it_is_found_named_and_erased_and_the_other_patient_stays(copied: Project) -> None:
    studies = RowNumbers(copied, STUDY).number([KEYS.study("60000002")])
    others = RowNumbers(copied, PATIENT).number([KEYS.patient(OTHER)])
    roles = {"train": {"patients": packed(others), "studies": {"3": packed(studies)}}}
    trained = ledger.append(copied, ledger.RUN, {"stage": "pretrain", "started": 1, "seconds": 1})
    ledger.append(copied, ledger.TRAINED_ON, {"run": trained, "path": "x", "roles": roles})
    of_training = {"started": 1, "seconds": 1, "sources": {"encoder": trained}}
    for stage, had in (
        ("rrg", {"metrics": {"trained.f1": 0.5}}),
        ("pg", {"counts": {"reason": "none here"}}),
    ):
        ledger.append(copied, ledger.RUN, {"stage": f"evaluate@{stage}", **of_training, **had})
    there = place(copied)
    opened = open_journal(there, GONE, "R1")
    (copy,) = opened.traces.copies
    assert (copy.study, copy.patient) == (KEYS.study("60000002"), KEYS.patient(OTHER))
    assert copy.score > 0.6
    (model,) = look(there, opened)["models"]
    assert (model["run"], model["evaluations"]) == (trained, ["evaluate@rrg"])
    named = archive_files(there, opened)
    assert any(name.endswith("s60000002.txt") for name in named)

    told = erase(there, opened, lambda _: None)
    assert archive_files(there, opened) == named
    assert told["scope"]["edited_copies_under_other_ids"] == 1
    assert told["absence"]["left"] == {}
    images = storage.read_table(copied.images, IMAGES, made_by="ingest").to_pylist()
    assert KEYS.study("60000003") in {row["study_key"] for row in images}
    assert KEYS.study("60000002") not in {row["study_key"] for row in images}
    assert KEYS.patient(OTHER) in {row["patient_key"] for row in images}
    rejects = storage.read_table(copied.rejects, REJECTS, made_by="ingest").to_pylist()
    erased = [row for row in rejects if row["reason"] == "erased" and row["file"].endswith(".dcm")]
    assert any("s60000002" in row["file"] for row in erased)
