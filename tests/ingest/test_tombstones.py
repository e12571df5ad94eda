"""Who was erased stays out: of the tables, of the finished work, and when delivered again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from jobs import make_job
from made_dicom import copy_archive, write_mimic, write_project
from pydicom import dcmread
from test_incremental import again, shards
from test_ingest import reasons, run, table

from lapvqa import storage
from lapvqa.errors import ConfigError
from lapvqa.identity import DEMO_KEY, Keyring, key_id
from lapvqa.ingest.ingest import files_of
from lapvqa.ingest.tombstones import Tombstones, add_tombstone, load_tombstones
from lapvqa.machine import load_machine
from lapvqa.params import load_params
from lapvqa.project import Project

GONE = "10000001"
KEY = "0123456789abcdef" * 2


def as_tree(mimic: Path, target: Path) -> Path:
    """The same files in folders that name nobody: the header alone says whose they are."""
    for number, folder in enumerate(sorted({path.parent for path in mimic.rglob("*.dcm")})):
        (target / f"s{number}").mkdir(parents=True)
        for path in sorted(folder.glob("*.dcm")):
            patient = folder.parent.name.removeprefix("p")
            dataset = dcmread(path)
            dataset.PatientID = patient
            dataset.StudyInstanceUID = f"1.2.3.{folder.name.removeprefix('s')}"
            dataset.save_as(target / f"s{number}" / path.name)
        text = folder.with_suffix(".txt").read_text()
        (target / f"s{number}" / "report.txt").write_text(text)
    return target


LAYOUTS: dict[str, Callable[[Path, Path], Path]] = {"mimic": copy_archive, "tree": as_tree}


@pytest.fixture(scope="module")
def mimic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mimic(tmp_path_factory.mktemp("archive") / "mimic")


@pytest.fixture(params=sorted(LAYOUTS))
def archive(request: pytest.FixtureRequest, tmp_path: Path, mimic: Path) -> Path:
    return LAYOUTS[request.param](mimic, tmp_path / "archive")


def new_project(root: Path, archive: Path) -> Project:
    project = write_project(root, archive, workers=1, shard_images=5)
    project.state.mkdir(parents=True, exist_ok=True)
    (project.state / "deid.key").write_text(KEY)
    return project


def bury(project: Project, **values: str) -> None:
    marks = Tombstones(Keyring(KEY.encode()))
    add_tombstone(project, request="R1", marks=[marks.mark(k, v) for k, v in values.items()])


def stored_texts(project: Project) -> str:
    """Everything that the finished work of ingest says in words."""
    folder = project.work_dir("ingest")
    return "\n".join(str(pq.read_table(path).to_pydict()) for path in folder.rglob("*.parquet"))


def test_what_is_left_is_what_an_archive_without_the_patient_gives(
    tmp_path: Path, archive: Path
) -> None:
    project = new_project(tmp_path / "project", archive)
    run(project)
    key = Keyring(KEY.encode()).patient(GONE)
    own = [row for row in table(project.images) if row["patient_key"] == key]
    texts = [row["report"] for row in table(project.studies) if row["patient_key"] == key]
    kept = [row["report"] for row in table(project.studies) if row["patient_key"] != key]
    assert (len(own), len(texts)) == (4, 2)
    assert key in stored_texts(project)
    before = shards(project)
    marks = Tombstones(Keyring(KEY.encode()))
    marked = Tombstones(marks.keyring, frozenset([marks.mark("patient", key)]))
    foretold = files_of(
        marked, load_params(project.params).ingest, make_job(project, load_machine(project))
    )

    bury(project, patient=key)
    counts = again(project)
    concerned = {row["shard"] for row in own}
    assert set(before) - set(shards(project)) == concerned
    erased = [file for file, reason in reasons(project).items() if reason == "erased"]
    assert len(erased) == 4 + 2
    assert sorted(foretold) == sorted(erased)
    said = stored_texts(project) + (project.record("ingest").read_text())
    hidden = {key, *(row[name] for row in own for name in ("study_key", "image_key"))}
    hidden |= {row["pixels_sha256"] for row in own} | {row["file_sha256"] for row in own}
    assert not [one for one in hidden | set(texts) - set(kept) if one in said]

    smaller = tmp_path / "smaller"
    shutil.copytree(archive, smaller, copy_function=shutil.copy2)
    for path in erased:
        (smaller / path).unlink()
    fresh = new_project(tmp_path / "fresh", smaller)
    assert run(fresh)["content"] == counts["content"]
    assert storage.sha256_file(fresh.labels) == storage.sha256_file(project.labels)

    bytes_before = shards(project)
    assert again(project) == counts
    assert shards(project) == bytes_before


def test_delivered_again_it_stays_out(tmp_path: Path, mimic: Path) -> None:
    archive = as_tree(mimic, tmp_path / "archive")
    project = new_project(tmp_path / "project", archive)
    run(project)
    key = Keyring(KEY.encode()).patient(GONE)
    own = [row for row in table(project.images) if row["patient_key"] == key]
    marks = Tombstones(Keyring(KEY.encode()))
    pixels = [marks.mark("pixels", row["pixels_sha256"]) for row in own]
    add_tombstone(project, request="R1", marks=[marks.mark("patient", key), *pixels])
    victims = [path for path in archive.rglob("*.dcm") if dcmread(path).PatientID == GONE]
    assert len(victims) == 4
    for number, path in enumerate(victims):
        dataset = dcmread(path)
        dataset.InstitutionName = "another sender"  # other bytes
        if number % 2:  # another patient's id, another study, another instance
            dataset.PatientID, dataset.StudyInstanceUID = "77", f"1.2.77.{number}"
            dataset.SOPInstanceUID = f"1.2.77.{number}.1"
        path.unlink()
        dataset.save_as(path.with_name(f"again{number}.dcm"))
    again(project)
    found = reasons(project)
    late = [reason for file, reason in found.items() if "again" in file]
    assert late == ["erased"] * 4
    assert not {row["pixels_sha256"] for row in own} & {
        row["pixels_sha256"] for row in table(project.images)
    }


def test_the_report_of_somebody_erased_goes_to_nobody_else(tmp_path: Path, mimic: Path) -> None:
    """Two patients in one folder with one report: whose it is was not clear, nor is it then."""
    archive = as_tree(mimic, tmp_path / "archive")
    first = next(p for p in sorted(archive.rglob("*.dcm")) if dcmread(p).PatientID == GONE)
    other = next(p for p in sorted(archive.rglob("*.dcm")) if dcmread(p).PatientID != GONE)
    shutil.move(other, first.parent / "other.dcm")
    text = (first.parent / "report.txt").read_text()
    project = new_project(tmp_path / "project", archive)
    bury(project, patient=Keyring(KEY.encode()).patient(GONE))
    run(project)
    assert text not in [row["report"] for row in table(project.studies)]


def test_keys_that_stay_as_they_are_have_the_same_tombstones() -> None:
    hashed, plain = (Tombstones(Keyring(KEY.encode(), keep_ids=keep)) for keep in (False, True))
    for kind in ("patient", "study", "image"):
        ids = [getattr(one.keyring, kind)("4711") for one in (hashed, plain)]
        assert ids[0] != ids[1]
        assert hashed.mark(kind, ids[0]) == plain.mark(kind, ids[1])
    assert hashed.mark("patient", "a") != hashed.mark("study", "a")


def test_a_damaged_list_stops_the_stage(tmp_path: Path, mimic: Path) -> None:
    project = new_project(tmp_path / "project", mimic)
    project.tombstones.write_text("{")
    with pytest.raises(ConfigError, match="tombstones.json"):
        run(project)
    project.tombstones.write_text(json.dumps({"tombstones": [{"request": "R"}]}))
    with pytest.raises(ConfigError, match="tombstones.json"):
        run(project)


@pytest.mark.parametrize(
    ("made_by", "read_by", "refused"),
    [(b"a" * 16, b"b" * 16, True), (b"a" * 16, b"a" * 16, False), (DEMO_KEY, b"b" * 16, False),
     (b"a" * 16, DEMO_KEY, False)],
)  # fmt: skip
def test_another_key_does_not_let_the_erased_back_in(
    tmp_path: Path, made_by: bytes, read_by: bytes, refused: bool
) -> None:
    project = Project(tmp_path)
    add_tombstone(project, request="R1", marks=["0" * 32], key=key_id(made_by))
    if refused:
        with pytest.raises(ConfigError, match="come back unseen"):
            load_tombstones(project, Keyring(read_by))
    else:
        assert load_tombstones(project, Keyring(read_by)).marks == {"0" * 32}
