"""A run of which nothing differs gives the last run's outputs back, and any other makes its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_dicom import write_mimic, write_project
from test_ingest import digests, image, run, said

from lapvqa.ingest import ingest
from lapvqa.ingest.rejects import read_rejects
from lapvqa.project import Project

STUDY = "files/p10/p10000001/s50000010"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with a twin, so that one shard is not the store's as it is."""
    folder = write_mimic(tmp_path_factory.mktemp("archive") / "mimic")
    first = next(path for path in sorted(folder.rglob("*.dcm")))
    shutil.copy2(first, first.with_name("zz-twin.dcm"))
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, archive: Path) -> Project:
    """One that every test changes a little, and leaves as a whole run leaves it."""
    budget = {"overall": 0.5, "per_folder": 1.0, "folder_min_files": 20}
    root = tmp_path_factory.mktemp("project")
    project = write_project(root, archive, shard_images=5, reject_budget=budget)
    run(project)
    return project


def facts(project: Project) -> Any:
    lines = map(json.loads, project.record("ingest").read_text().splitlines())
    return [entry["values"] for entry in lines if entry["kind"] == "facts"]


def again(project: Project, *, full: bool) -> tuple[object, ...]:
    """Run as DVC does, without the outputs; return all that a run leaves."""
    shutil.rmtree(project.root / "data")
    if full:
        shutil.rmtree(project.work_dir("ingest") / "last", ignore_errors=True)
    counts = run(project)
    lines = sorted(said(project).splitlines())
    return digests(project), counts, facts(project), lines, read_rejects(project)


def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows whenever the archive is opened, as only a full run does."""
    found: list[int] = []
    original = ingest.open_source

    def counting(*arguments: Any) -> Any:
        found.append(1)
        return original(*arguments)

    monkeypatch.setattr(ingest, "open_source", counting)
    return found


def test_nothing_new_leaves_what_a_full_run_leaves(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = opened(monkeypatch)
    full = again(project, full=True)
    assert len(runs) == 1
    assert again(project, full=False) == full
    assert again(project, full=False) == full  # also the third time
    assert len(runs) == 1


def _new_file(project: Project, archive: Path) -> None:
    (archive / STUDY / "ffffffff-new.dcm").write_bytes(image(77, patient="10000001"))


def _new_text(project: Project, archive: Path) -> None:
    (archive / f"{STUDY}.txt").write_text("FINAL REPORT\n FINDINGS: Other words.\n")


def _gone(project: Project, archive: Path) -> None:
    next(path for path in sorted(archive.rglob("*.dcm"))).unlink()


def _parameter(project: Project, archive: Path) -> None:
    text = project.params.read_text()
    assert "shard_images: 5" in text
    project.params.write_text(text.replace("shard_images: 5", "shard_images: 6"))


def _sources(project: Project, archive: Path) -> None:
    with project.local.open("a") as handle:
        handle.write("reports: {encoding: cp1252}\n")


def _waiver(project: Project, archive: Path) -> None:
    project.waivers.write_text("waivers: []\n")


def _forgotten_rows(project: Project, archive: Path) -> None:
    next(project.work_dir("ingest").glob("files-*/rows-*.parquet")).unlink()


def _damaged_output(project: Project, archive: Path) -> None:
    kept = project.work_dir("ingest") / "last" / project.studies.name
    data = bytearray(kept.read_bytes())
    data[len(data) // 2] ^= 1
    kept.unlink()
    kept.write_bytes(data)


def _damaged_facts(project: Project, archive: Path) -> None:
    (project.work_dir("ingest") / "last" / "made_of.json").write_text("{")


def _lost_shard(project: Project, archive: Path) -> None:
    next((project.work_dir("ingest") / "last" / "images").iterdir()).unlink()


def _other_key(project: Project, archive: Path) -> None:
    (project.state / "deid.key").write_text("fedcba9876543210" * 2)


@pytest.mark.parametrize(
    "change",
    [
        _new_file, _new_text, _gone, _parameter, _sources, _waiver, _forgotten_rows,
        _damaged_output, _damaged_facts, _lost_shard, _other_key,
    ],
)  # fmt: skip
def test_whatever_differs_has_a_full_run(
    project: Project,
    archive: Path,
    change: Callable[[Project, Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert (project.work_dir("ingest") / "last" / "made_of.json").exists()
    runs = opened(monkeypatch)
    change(project, archive)
    left = again(project, full=False)
    assert len(runs) == 1
    assert again(project, full=True)[:3] == left[:3]


def test_a_passing_cause_is_asked_again(
    project: Project, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = archive / STUDY / "broken.dcm"
    broken.symlink_to("nowhere.dcm")
    again(project, full=False)
    runs = opened(monkeypatch)
    again(project, full=False)
    assert len(runs) == 1
    broken.unlink()
