from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
from jobs import make_job
from made_dicom import copy_archive, dicom_bytes, small_image, write_mimic, write_project

from lapvqa import inventory, storage
from lapvqa.dicom.render import read_image
from lapvqa.errors import RejectBudgetError, SourceError, SplitLeakError
from lapvqa.identity import Ids, Keyring, load_key
from lapvqa.images.shards import ShardStore, verify_shards
from lapvqa.ingest import ingest
from lapvqa.ingest.cluster import read_group, write_groups
from lapvqa.ingest.one_file import Context, Task
from lapvqa.ingest.pool import process_all
from lapvqa.machine import load_machine
from lapvqa.params import load_params
from lapvqa.project import Project
from lapvqa.recorder import Recorder
from lapvqa.schemas import COMPANIONS, IMAGES, LABELS, REJECTS, STUDIES

Rows = list[dict[str, Any]]


def run(project: Project) -> dict[str, int | float | str]:
    """Stages inventory and ingest, as python -m lapvqa.stage runs them."""
    params, machine = load_params(project.params), load_machine(project)
    for name, function, section in (
        ("inventory", inventory.run, params.inventory),
        ("ingest", ingest.run, params.ingest),
    ):
        project.work_dir(name).mkdir(parents=True, exist_ok=True)
        recorder = Recorder(project.record(name), stage=name)
        try:
            counts = function(section, make_job(project, machine, recorder))  # type: ignore[operator]
        finally:
            recorder.close()
    return counts


def table(path: Path) -> Rows:
    schema = {
        "images": IMAGES,
        "studies": STUDIES,
        "rejects": REJECTS,
        "labels": LABELS,
        "companions": COMPANIONS,
    }[path.stem]
    return storage.read_table(path, schema, made_by="ingest").to_pylist()


def digests(project: Project) -> dict[str, str]:
    files = [path for path in sorted((project.root / "data").rglob("*")) if path.is_file()]
    assert any(path.suffix == ".arrow" for path in files)
    return {str(path.relative_to(project.root)): storage.sha256_file(path) for path in files}


def reasons(project: Project) -> dict[str, str]:
    return {row["file"]: row["reason"] for row in table(project.rejects)}


def said(project: Project) -> str:
    lines = project.record("ingest").read_text().splitlines()
    return "\n".join(entry["text"] for entry in map(json.loads, lines) if entry["kind"] == "say")


def write_tree(folder: Path, files: dict[str, bytes | str]) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def image(seed: int, *, patient: str = "P1", study: str = "1.2.1", **attributes: Any) -> bytes:
    uid = attributes.pop("SOPInstanceUID", f"1.2.3.{seed}")
    return dicom_bytes(
        small_image(seed), bits=8, PatientID=patient, StudyInstanceUID=study, SOPInstanceUID=uid,
        **attributes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def mimic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mimic(tmp_path_factory.mktemp("archive") / "mimic")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, mimic: Path) -> Project:
    """The MIMIC archive ingested without disturbance, two workers, shards of 5."""
    root = tmp_path_factory.mktemp("done")
    project = write_project(root, mimic, shard_images=5, workers=2)
    run(project)
    return project


def test_every_image_is_stored_as_it_reads(done: Project, mimic: Path) -> None:
    images = table(done.images)
    assert len(images) == 16
    assert [row["image_key"] for row in images] == sorted(row["image_key"] for row in images)
    ring = Keyring(
        load_key(mimic, make_job(done, load_machine(done), Recorder(done.record("x"), stage="x")))
    )
    by_key = {row["image_key"]: row for row in images}
    store = ShardStore(done.images_dir)
    for path in mimic.rglob("*.dcm"):
        row = by_key[ring.image(path.stem)]
        expected = read_image(path.read_bytes())
        stored = store.read([row["shard"]], [row["row"]])[0]
        assert np.array_equal(stored, expected.pixels)
        assert row["pixels_sha256"] == hashlib.sha256(stored.tobytes()).hexdigest()
        assert row["file_sha256"] == storage.sha256_file(path)
        assert row["study_key"] == ring.study(path.parent.name[1:])
        assert row["patient_key"] == ring.patient(path.parent.parent.name[1:])
        assert row["scale"] == expected.fit.scale
    shards = [shard.name for shard in done.images_dir.iterdir()]
    assert sorted(Counter(row["shard"] for row in images).values()) == [1, 5, 5, 5]
    assert verify_shards(done.images_dir, shards) == 16


def test_studies_are_ordered_in_time_and_keep_their_report(done: Project) -> None:
    studies = table(done.studies)
    assert len(studies) == 8
    for patient in {row["patient_key"] for row in studies}:
        own = sorted(
            (row for row in studies if row["patient_key"] == patient),
            key=lambda row: row["study_order"],
        )
        assert [row["study_order"] for row in own] == [0, 1]
        assert [row["days_since_first"] for row in own] == [0, 31]  # 15 January, 15 February
        assert len({row["split"] for row in own}) == 1
    for row in studies:
        assert row["num_images"] == 2
        assert row["report"].startswith("FINAL REPORT\n FINDINGS: Number 5000")
        assert row["report_sha256"] == hashlib.sha256(row["report"].encode()).hexdigest()
    assert table(done.labels) == []
    account = "16 taken + 0 rejected + 0 companions + 8 other files (report 8)"
    assert f"files: 24 in = {account}" in said(done)


def test_shards_are_links_into_the_work_store(done: Project) -> None:
    # Of the output, of the work store, and of what the last run wrote.
    assert all(path.stat().st_nlink == 3 for path in done.images_dir.iterdir())
    stores = [path for path in done.work_dir("ingest").iterdir() if path.is_dir()]
    assert {path.name.split("-")[0] for path in stores} == {"files", "last", "reports"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in stores} == {0o700}


@pytest.mark.parametrize("num_workers", [1, 3])
def test_number_of_workers_leaves_no_trace(
    tmp_path: Path, done: Project, mimic: Path, num_workers: int
) -> None:
    project = write_project(tmp_path, mimic, shard_images=5, workers=num_workers)
    _share_key(done, project)
    run(project)
    assert digests(project) == digests(done)


def _share_key(source: Project, target: Project) -> None:
    target.state.mkdir(parents=True, exist_ok=True)
    shutil.copy(source.state / "deid.key", target.state / "deid.key")


def test_a_second_run_reads_nothing_again(tmp_path: Path, mimic: Path) -> None:
    project = write_project(tmp_path, mimic, shard_images=5)
    run(project)
    before = digests(project)
    shutil.rmtree(project.root / "data")  # as DVC does before it runs a stage
    run(project)
    assert digests(project) == before
    assert "16 files known from before, 0 new" in said(project)


def test_views_can_change_without_reading_again(tmp_path: Path, mimic: Path) -> None:
    project = write_project(tmp_path, mimic, shard_images=5)
    run(project)
    write_project(tmp_path, mimic, shard_images=5, views="frontal")
    counts = run(project)
    assert "16 files known from before, 0 new" in said(project)
    assert (counts["images"], counts["files_rejected"]) == (8, 8)
    assert set(reasons(project).values()) == {"lateral_not_asked"}  # half of all: no budget matter
    assert {row["view"] for row in table(project.images)} == {"PA"}
    assert verify_shards(project.images_dir, {row["shard"] for row in table(project.images)}) == 8


def test_tables_of_the_archive_decide_view_split_time_and_labels(
    tmp_path: Path, mimic: Path
) -> None:
    archive = copy_archive(mimic, tmp_path / "archive")
    paths = sorted(archive.rglob("*.dcm"))
    rows = [(path.stem, path.parent.name[1:], path.parent.parent.name[1:]) for path in paths]
    split = [
        f"{dicom},{study},{subject},{'test' if subject.endswith('1') else 'train'}"
        for dicom, study, subject in rows
        if not subject.endswith("2")
    ]
    (archive / "mimic-cxr-2.0.0-split.csv").write_text(
        "\n".join(["dicom_id,study_id,subject_id,split", *split])
    )
    metadata = [f"{dicom},{study},AP,2149{study[-1]}101,93000" for dicom, study, _ in rows]
    (archive / "mimic-cxr-2.0.0-metadata.csv").write_text(
        "\n".join(["dicom_id,study_id,ViewPosition,StudyDate,StudyTime", *metadata])
    )
    from lapvqa.schemas import CHEXPERT_LABELS

    (archive / "mimic-cxr-2.0.0-chexpert.csv").write_text(
        f"subject_id,study_id,{','.join(CHEXPERT_LABELS)}\n"
        "10000001,50000010,,1.0,,-1.0,,,,,0.0,,,,,\n10000009,59999999,,1.0,,,,,,,,,,,,\n"
    )
    project = write_project(
        tmp_path / "project", archive, reject_budget={"overall": 0.3, "per_folder": 1.0}
    )
    counts = run(project)
    assert counts["images"] == 12
    assert (
        sorted(reasons(project).values())
        == ["no_split"] * 4 + ["report_without_study"] * 2 + ["study_empty"] * 2
    )
    assert {row["view"] for row in table(project.images)} == {"AP"}
    by_split = [row["split"] for row in table(project.studies)]
    assert (by_split.count("test"), by_split.count("train")) == (2, 4)
    (labels,) = table(project.labels)
    assert (labels["Cardiomegaly"], labels["Edema"], labels["Fracture"]) == (1, -1, None)
    (archive / "mimic-cxr-2.0.0-split.csv").write_text(
        "dicom_id,study_id,subject_id,split\n"
        + "\n".join(
            f"{dicom},{study},x{index},{'train' if index else 'test'}"
            for index, (dicom, study, _) in enumerate(rows)
        )
    )
    with pytest.raises(SplitLeakError, match="1 patients"):
        run(project)


def test_what_path_and_tables_decide_is_not_read(tmp_path: Path, mimic: Path) -> None:
    archive = copy_archive(mimic, tmp_path / "archive")
    write_tree(archive, {"stray/one.dcm": image(500)})
    stems = [path.stem for path in sorted(archive.rglob("files/**/*.dcm"))]
    rows = [f"{stem},{'LATERAL' if stem.startswith('00000000') else 'PA'}" for stem in stems]
    (archive / "mimic-cxr-2.0.0-metadata.csv").write_text(
        "\n".join(["dicom_id,ViewPosition,StudyDate,StudyTime", *(f"{row},," for row in rows)])
    )
    project = write_project(
        tmp_path / "project",
        archive,
        views="frontal",
        reject_budget={"overall": 0.06, "per_folder": 1.0},
    )
    counts = run(project)
    assert (counts["files"], counts["images"], counts["files_rejected"]) == (26, 15, 2)
    assert {row["reason"]: row["sha256"] for row in table(project.rejects)} == {
        "outside_layout": None,
        "lateral_not_asked": None,
    }


def test_a_tree_with_everything_that_goes_wrong(tmp_path: Path) -> None:
    whole = image(1)
    archive = write_tree(
        tmp_path / "archive",
        {
            "A/s1/one.dcm": whole,
            "A/s1.txt": "FINDINGS: Clear.",
            "A/s2/two.dcm": image(2, study="1.2.2", StudyDate="21500103"),
            "A/s2/cut.dcm": image(3, study="1.2.2")[:3000],
            "B/s3/three": image(4, patient="P2", study="1.2.3"),
            "B/s3/report.txt": b"\xef\xbb\xbfIMPRESSION: gr\xc3\xb6\xc3\x9fer",
            "B/s4/four.dcm": image(5, patient="P2", study="1.2.4"),
            "B/s4/note.txt": b"caf\xe9",
            "C/copy.dcm": whole,
            "C/same_uid.dcm": image(6, study="1.2.5", SOPInstanceUID="1.2.3.4"),
            "C/text.dcm": "not a DICOM file",
            "C/other_patient.dcm": image(7, patient="P9", study="1.2.1"),
            "C/nobody.dcm": image(8, patient="", study="1.2.8"),
            "C/lost.txt": "a report that belongs to no study",
            "README": "not an image",
        },
    )
    (archive / "C/gone.dcm").symlink_to(archive / "nowhere.dcm")
    project = write_project(
        tmp_path / "project", archive, reject_budget={"overall": 0.9, "per_folder": 1.0}
    )
    counts = run(project)
    assert reasons(project) == {
        "A/s2/cut.dcm": "truncated",
        "C/copy.dcm": "duplicate_content",
        "C/gone.dcm": "unreadable",
        "C/lost.txt": "report_without_study",
        "C/nobody.dcm": "missing_id",
        "C/other_patient.dcm": "patient_mismatch",
        "C/same_uid.dcm": "duplicate_uid",
        "C/text.dcm": "not_dicom",
        _study_key(project, archive, "1.2.5"): "study_empty",
        _study_key(project, archive, "1.2.8"): "study_empty",
    }
    assert len(str(counts.pop("content"))) == 16
    assert counts == {
        "files": 16, "images": 4, "files_rejected": 7, "companions": 0, "other_files": 5,
        "patients": 2, "studies": 4, "studies_rejected": 2, "reports": 3, "reports_rejected": 1,
    }  # fmt: skip
    assert sorted(str(row["report"]) for row in table(project.studies)) == [
        "FINDINGS: Clear.", "IMPRESSION: größer", "None", "café",
    ]  # fmt: skip
    for row in table(project.rejects):
        assert row["remedy"]
        assert row["detail"]
        assert row["stage"] == "ingest"
    account = "4 taken + 7 rejected + 0 companions + 5 other files (report 4, text 1)"
    assert f"files: 16 in = {account}" in said(project)


def _study_key(project: Project, archive: Path, uid: str) -> str:
    recorder = Recorder(project.record("x"), stage="x")
    return Keyring(load_key(archive, make_job(project, load_machine(project), recorder))).study(uid)


def test_above_the_budget_the_run_fails_and_keeps_the_rejects(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {f"s{n}/{n}.dcm": image(n, study=f"1.{n}") for n in range(9)}
    archive = write_tree(tmp_path / "archive", {**files, "s0.txt": "Clear.", "s1/bad.dcm": "text"})
    project = write_project(
        tmp_path / "project", archive, reject_budget={"overall": 0.09, "per_folder": 1.0}
    )
    with pytest.raises(RejectBudgetError, match=r"1 of 10 files.*10\.0%.*not_dicom: 1") as caught:
        run(project)
    assert caught.value.exit_code == 3
    kept = storage.read_table(
        project.work_dir("ingest") / "rejects.parquet", REJECTS, made_by="ingest"
    )
    assert kept["file"].to_pylist() == ["s1/bad.dcm"]
    assert not project.images.exists()
    write_project(tmp_path / "project", archive, reject_budget={"overall": 0.1, "per_folder": 1.0})
    assert run(project)["images"] == 9
    assert "10 files known from before" in said(project)


def test_without_an_image_that_is_left_the_error_says_so(tmp_path: Path) -> None:
    archive = write_tree(tmp_path / "archive", {"a.dcm": "text", "b.dcm": "other text"})
    project = write_project(
        tmp_path / "project", archive, reject_budget={"overall": 1.0, "per_folder": 1.0}
    )
    with pytest.raises(RejectBudgetError, match="no image is left: all 2 files") as caught:
        run(project)
    assert "allowed" not in str(caught.value)


def test_reports_that_were_all_rejected_are_counted_by_reason(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "s1/a.dcm": image(1, study="1.1"),
        "s1.txt": b"\0\1\2\3" * 20,
        "s2/a.dcm": image(2, study="1.2"),
        "s2.txt": b"%PDF-1.4 of a program",
    }
    project = write_project(tmp_path / "project", write_tree(tmp_path / "archive", files))
    with pytest.raises(SourceError, match=r"; 2 reports were rejected: \w+ 1, \w+ 1") as caught:
        run(project)
    assert "lapvqa rejects --files" in caught.value.hint


@pytest.mark.parametrize("reports", [{}, {"elsewhere/lost.txt": "Clear."}])
def test_a_source_without_reports_gets_a_clear_answer(
    tmp_path: Path, reports: dict[str, bytes | str]
) -> None:
    archive = write_tree(tmp_path / "archive", {"s1/a.dcm": image(1), **reports})
    with pytest.raises(SourceError, match="expected reports beside 1 images") as caught:
        run(write_project(tmp_path / "project", archive))
    assert "looked for" in caught.value.hint


def test_keep_ids_keeps_them(tmp_path: Path, mimic: Path) -> None:
    project = write_project(tmp_path, mimic, deid={"keep_ids": True})
    run(project)
    assert {row["patient_key"] for row in table(project.studies)} == {
        str(10_000_000 + patient) for patient in range(4)
    }


CANARY = "KANARIENVOGEL"


def test_no_identity_gets_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    hidden = (
        "PatientName", "OtherPatientIDs", "InstitutionName", "ReferringPhysicianName", "StudyID",
        "AccessionNumber", "StudyDescription", "ImageComments", "DeviceSerialNumber",
    )  # fmt: skip
    names = dict.fromkeys(hidden, CANARY)
    named = image(1, patient=f"{CANARY}1", study="1.2.777777", ViewPosition=CANARY, **names)
    broken = image(2, patient=f"{CANARY}2", study="1.2.888888", **names)
    archive = write_tree(
        tmp_path / "archive",
        {"s/a.dcm": named, "s/r.txt": "Clear.", "t/b.dcm": broken[: len(broken) // 2]},
    )
    project = write_project(
        tmp_path / "project", archive, reject_budget={"overall": 0.5, "per_folder": 1.0}
    )
    run(project)
    output = capfd.readouterr()
    assert CANARY not in output.out + output.err
    assert _files_with(project, CANARY, "1.2.777777", "1.2.888888", "'1.2.3.1'") == []
    # The search would find it if it were there.
    kept = write_project(
        tmp_path / "kept",
        archive,
        reject_budget={"overall": 0.5, "per_folder": 1.0},
        deid={"keep_ids": True},
    )
    run(kept)
    assert {path.name for path in _files_with(kept, f"{CANARY}1")} > {
        "studies.parquet",
        "images.parquet",
    }
    assert {path.name for path in _files_with(kept, "1.2.777777")} > {"images.parquet"}


def _files_with(project: Project, *secrets: str) -> list[Path]:
    """Files of the project that hold a secret, whatever their compression."""
    found = []
    files = [path for path in project.root.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        content = path.read_bytes()
        if path.suffix == ".parquet":
            read = parquet.read_table(path)
            content = (str(read.to_pydict()) + str(read.schema.metadata)).encode()
        if any(secret.encode() in content for secret in secrets):
            found.append(path)
    return found


def test_a_damaged_chunk_of_work_is_noticed_and_made_again(tmp_path: Path, mimic: Path) -> None:
    project = write_project(tmp_path, mimic, shard_images=5)
    run(project)
    before = digests(project)
    (store,) = project.work_dir("ingest").glob("files-*/")
    (reports,) = project.work_dir("ingest").glob("reports-*/*.parquet")
    rows = sorted(store.glob("*.parquet"))
    shard = store / parquet.read_table(rows[0])["shard"][0].as_py()
    shutil.rmtree(project.root / "data")
    shard.write_bytes(shard.read_bytes()[:1000])
    rows[1].write_bytes(b"nothing of use")
    reports.write_bytes(b"nothing of use")
    run(project)
    assert said(project).count("dropped a damaged shard") == 1
    assert said(project).count("dropped damaged rows") == 1
    assert said(project).count("dropped damaged reports") == 1
    assert digests(project) == before


def test_a_file_that_changes_after_the_listing_is_read_next_time(tmp_path: Path) -> None:
    archive = write_tree(
        tmp_path / "archive",
        {"s/a.dcm": image(1), "s/b.dcm": image(2), "s/r.txt": "Clear."},
    )
    project = write_project(
        tmp_path / "project", archive, reject_budget={"overall": 0.5, "per_folder": 1.0}
    )
    run(project)
    os.utime(archive / "s/b.dcm", ns=(1, 1))
    params, machine = load_params(project.params), load_machine(project)
    recorder = Recorder(project.record("ingest"), stage="ingest")
    store = next(project.work_dir("ingest").glob("files-*/"))
    shutil.rmtree(store)
    ingest.run(params.ingest, make_job(project, machine, recorder))
    assert reasons(project) == {"s/b.dcm": "changed"}
    run(project)
    assert reasons(project) == {}


class _Bomb(Ids):
    """Ids that kill the process which receives them, as a decoder with a wild pointer would."""

    def __reduce__(self) -> tuple[Callable[[int], None], tuple[int]]:
        return os._exit, (139,)


def test_a_crash_costs_one_file(tmp_path: Path) -> None:
    archive = write_tree(tmp_path, {f"{n}.dcm": image(n, study=f"1.{n}") for n in range(12)})
    facts = {path: size_and_time for path, *size_and_time in inventory.scan(archive)}
    tasks = [
        Task(path, *facts[path], _Bomb() if path == "3.dcm" else Ids(), False)
        for path in sorted(facts)
    ]
    batches = [tasks[start : start + 4] for start in range(0, 12, 4)]
    context = Context(archive, Keyring(b"0123456789abcdef"), 0)
    results = {r.path: r.reason for r in process_all(batches, context, workers=2)}
    assert len(results) == 12
    assert {path for path, reason in results.items() if reason} == {"3.dcm"}
    assert results["3.dcm"] == "decoder_crashed"
    assert not multiprocessing.active_children()


def test_groups_that_are_read_one_by_one_are_known_to_the_stage(
    tmp_path: Path, mimic: Path
) -> None:
    project = write_project(tmp_path / "project", mimic, shard_images=5)
    params, machine = load_params(project.params), load_machine(project)
    for name in ("inventory", "ingest"):
        project.work_dir(name).mkdir(parents=True)
    job = make_job(project, machine, Recorder(project.record("x"), stage="x"))
    inventory.run(params.inventory, job)
    names = write_groups(params.ingest, job)
    assert [read_group(params.ingest, job, name) for name in names] == [5, 5, 5, 1]
    run(project)
    assert "16 files known from before, 0 new" in said(project)
