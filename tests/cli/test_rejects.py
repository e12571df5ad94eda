"""``lapvqa rejects``: list, retry, waive, on a real ingest of a real small archive."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import pytest
from cli_answer import Lapvqa
from jobs import make_job

from lapvqa import inventory, storage
from lapvqa.errors import RejectBudgetError
from lapvqa.ingest import ingest
from lapvqa.lineage import ledger
from lapvqa.machine import load_machine
from lapvqa.params import load_params
from lapvqa.project import Project
from lapvqa.recorder import Recorder
from lapvqa.schemas import REJECTS

sys.path.insert(0, str(Path(__file__).parents[1] / "dicom"))
from made_dicom import write_mimic, write_project

BAD = "files/p10/p10000000/s50000000/0000ffff-00000000.dcm"


def run(project: Project) -> str:
    """Stages inventory and ingest; return what ingest said."""
    params, machine = load_params(project.params), load_machine(project)
    for name, function, section in (
        ("inventory", inventory.run, params.inventory),
        ("ingest", ingest.run, params.ingest),
    ):
        project.work_dir(name).mkdir(parents=True, exist_ok=True)
        recorder = Recorder(project.record(name), stage=name)
        try:
            function(section, make_job(project, machine, recorder))  # type: ignore[operator]
        finally:
            recorder.close()
    return project.record("ingest").read_text()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose budget one damaged file exceeds."""
    archive = write_mimic(tmp_path / "archive")
    (archive / BAD).write_bytes(b"no picture at all")
    project = write_project(
        tmp_path / "project", archive, reject_budget={"overall": 0.0, "per_folder": 1.0}
    )
    (project.root / "dvc.yaml").write_text("stages: {}\n")
    with pytest.raises(RejectBudgetError, match="1 of 17 files"):
        run(project)
    monkeypatch.chdir(project.root)
    return project


def test_rejects_are_listed_waived_and_read_again(project: Project, lapvqa: Lapvqa) -> None:
    listed = lapvqa("rejects")
    assert "not_dicom" in listed.out
    assert BAD not in listed.out
    assert "0 companions + 8 other files (report 8)" in " ".join(listed.out.split())
    assert BAD in lapvqa("rejects", "--files").out

    wrong = lapvqa("rejects", "waive", "--reason", "not_dcm", "--note", "x")
    assert wrong.code == 2
    assert "not_dicom" in wrong.out + wrong.err

    lapvqa("rejects", "waive", "--reason", "not_dicom", "--note", "a test file")
    waivers = project.waivers.read_text()
    waived = [entry.payload for entry in ledger.entries(project) if entry.kind == ledger.WAIVER]
    assert [entry and entry["note"] for entry in waived] == ["a test file"]
    assert "a test file" in waivers
    assert "p10000000" not in waivers
    said = run(project)
    assert "1 rejected file waived" in said
    assert "17 files known from before, 0 new" in said
    assert "(waived)" in lapvqa("rejects", "--files").out

    again = lapvqa("rejects", "retry", "--reason", "not_dicom")
    assert "1 file will be read again" in again.out
    assert "not among them" not in again.out
    assert not project.rejects.exists()
    assert "16 files known from before, 1 new" in run(project)


def test_what_is_to_be_read_again_does_not_come_back_from_dvcs_cache(
    project: Project, lapvqa: Lapvqa
) -> None:
    def repro() -> int:
        asked = [sys.executable, "-m", "dvc", "repro", "-q", "-s", "ingest"]
        subprocess.run(asked, cwd=project.root, check=True)
        return len((project.root / "ran").read_text().split())

    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], check=True)
    shutil.copy(project.rejects, "made.parquet")
    (project.root / "dvc.yaml").write_text(
        "stages: {ingest: {cmd: echo 1 >> ran; cp made.parquet data/rejects.parquet, "
        "deps: [made.parquet], outs: [data/rejects.parquet]}}\n"
    )
    assert repro() == 1
    project.rejects.unlink()
    assert repro() == 1  # brought back
    assert "1 file will be read again" in lapvqa("rejects", "retry").out
    assert "not_dicom" in lapvqa("rejects").out
    assert repro() == 2


def test_rejects_of_tokens_are_those_of_the_studies_that_are_here(
    project: Project, lapvqa: Lapvqa
) -> None:
    rows = storage.read_table(project.rejects, REJECTS, made_by="ingest").to_pylist()
    older = [
        {**rows[0], "stage": "tokens", "kind": "study", "reason": "no_report", "file": "older"}
    ]
    storage.write_table(project.token_rejects, pa.Table.from_pylist(older, schema=REJECTS), REJECTS)
    assert "no_report" in lapvqa("rejects").out, "nobody knows of which studies they are"
    project.studies.write_bytes(b"the studies of an archive")
    md5 = hashlib.md5(project.studies.read_bytes()).hexdigest()
    deps = f"[{{path: data/studies.parquet, md5: {md5}}}]"
    project.dvc_lock.write_text(
        f"schema: '2.0'\nstages:\n  tokens: {{cmd: t, deps: {deps}, outs: []}}\n"
    )
    assert "no_report" in lapvqa("rejects").out
    for made in (lambda: project.studies.write_bytes(b"of another"), project.studies.unlink):
        made()  # as a new archive's ingest does, done or failed
        for options in ([], ["--files"]):
            out = " ".join(lapvqa("rejects", *options).out.split())
            assert "not_dicom" in out
            assert "older" not in out
            assert "no_report" not in out
            assert "not shown: 1 reject of tokens" in out
        assert lapvqa("rejects", "--reason", "no_report").code == 2
        assert "no_report" not in lapvqa("status").out


def test_a_key_leads_back_to_its_file_for_who_holds_the_key_file(
    project: Project, lapvqa: Lapvqa, tmp_path: Path
) -> None:
    taken = sorted((tmp_path / "archive" / "files").rglob("*.dcm"))[-1]
    twin = taken.with_name("ffffffff-twin.dcm")
    copy = pydicom.dcmread(taken)
    copy.SeriesDescription = "sent again"
    copy.save_as(twin)
    with pytest.raises(RejectBudgetError):
        run(project)
    path = taken.relative_to(tmp_path / "archive").as_posix()
    again = twin.relative_to(tmp_path / "archive").as_posix()
    listed = lapvqa("rejects", "--files", "--reason", "duplicate_uid").out
    assert f"file {again}: duplicate_uid; " in listed
    assert listed.endswith(f"; the same image UID: {path}\n")
    asked = lapvqa("whois", path)
    assert asked.code == 0, asked.err
    line = next(one for one in asked.out.splitlines() if one.startswith(path))
    study = line.partition("study ")[2].partition(",")[0]
    by_key = lapvqa("whois", study[:10])
    assert path in by_key.out
    assert BAD not in by_key.out
    assert "not_dicom" in lapvqa("whois", BAD).out
    assert lapvqa("whois", "0123456789").code == 2
    log = project.state / "whois.jsonl"
    assert len(log.read_text().splitlines()) == 4
    assert log.stat().st_mode & 0o077 == 0

    key = project.state / "deid.key"
    key.write_text("another key, as long as a key must be")
    other = lapvqa("whois", study)
    assert other.code == 2
    assert "that hid the identifiers" in other.err
    key.unlink()
    assert "found none" in lapvqa("whois", study).err
    assert not key.exists()


def test_after_another_archive_the_answers_are_of_the_present_one(
    project: Project, lapvqa: Lapvqa, tmp_path: Path
) -> None:
    """The first archive's outputs come back, as from DVC's cache; ingest read the other one last.

    The other has the same studies, sizes and times, and other names of its images.
    """
    first, other = tmp_path / "archive", tmp_path / "other"
    shutil.copytree(first, other, copy_function=shutil.copy2)
    (first / BAD).unlink()
    run(project)
    data = project.root / "data"
    shutil.copytree(data, tmp_path / "kept", copy_function=shutil.copy2)
    mine = pq.read_table(project.images).to_pylist()[0]

    for path in (other / "files").rglob("*.dcm"):  # other images, whose UIDs have other keys
        path.rename(path.with_stem(path.stem[::-1]))
    write_project(project.root, other, reject_budget={"overall": 1.0, "per_folder": 1.0})
    run(project)
    theirs = {row["image_key"] for row in pq.read_table(project.images).to_pylist()}
    write_project(project.root, first, reject_budget={"overall": 1.0, "per_folder": 1.0})
    assert "of another archive" in lapvqa("whois", mine["image_key"]).err

    shutil.rmtree(data)
    shutil.copytree(tmp_path / "kept", data, copy_function=shutil.copy2)
    assert mine["image_key"] not in theirs
    answer = lapvqa("whois", mine["image_key"])
    assert answer.code == 0, answer.err
    named = answer.out.splitlines()[1].partition(":")[0]
    assert hashlib.sha256((first / named).read_bytes()).hexdigest() == mine["file_sha256"]
    assert lapvqa("whois", sorted(theirs)[0]).code == 2
    assert "nothing was rejected" in lapvqa("rejects").out

    for store in project.work_dir("ingest").glob("files-*"):
        if any(mine["image_key"].encode() in rows.read_bytes() for rows in store.glob("rows-*")):
            shutil.rmtree(store)
    absent = lapvqa("whois", mine["image_key"])
    assert absent.code == 2
    assert "dvc repro --single-item --force ingest" in absent.err


def test_the_budget_of_a_folder_names_no_folder(project: Project, tmp_path: Path) -> None:
    write_project(
        project.root,
        tmp_path / "archive",
        reject_budget={"overall": 1.0, "per_folder": 0.1, "folder_min_files": 2},
    )
    with pytest.raises(RejectBudgetError, match=r"1 of 5 files in folder 1 of 4") as caught:
        run(project)
    assert "p10000000" not in str(caught.value)


def test_what_is_not_read_again_is_counted(
    project: Project, lapvqa: Lapvqa, tmp_path: Path
) -> None:
    films = sorted((tmp_path / "archive" / "files").rglob("*.dcm"))
    shutil.copy(films[-1], films[-1].with_name("ffffffff-again.dcm"))
    (tmp_path / "archive/files/p10/p10000000/s59999999.txt").write_text("FINDINGS: Clear.")
    with pytest.raises(RejectBudgetError):
        run(project)
    again = " ".join(lapvqa("rejects", "retry").out.split())
    assert "1 file will be read again by the next `lapvqa run`" in again
    assert "not among them, for every run judges them anew: 1 file (by comparison" in again
    assert "), 1 report" in again
    none = lapvqa("rejects", "retry", "--reason", "report_without_study").out
    assert "no further file will be read again" in none
    assert "judges them anew: 1 report\n" in none
    before = " ".join(lapvqa("rejects", "retry", "--file", BAD).out.split())
    assert (
        "anew: 1 file (by comparison: duplicates, splits, views; of a passing cause; or" in before
    )
