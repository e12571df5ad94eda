"""Much of an input folder is gone: the inventory stops and asks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lapvqa import inventory, storage, vanished
from lapvqa.errors import EXIT_BAD_DATA, FilesGoneError
from lapvqa.ingest.archives.found import as_table
from lapvqa.job import Job
from lapvqa.machine import Machine
from lapvqa.project import Project
from lapvqa.recorder import Recorder
from lapvqa.schemas import INVENTORY

SECRET = "DOE^JANE"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job whose archive has 111 files and whose evaluation set has three."""
    folders = {name: tmp_path / "input" / name for name in inventory.NAMES}
    for name, number in (("source", 111), ("vindr", 3)):
        folders[name].mkdir(parents=True)
        for index in range(number):
            (folders[name] / f"{SECRET}-{index:03d}.dcm").write_bytes(bytes(index))
    project = Project(tmp_path)
    recorder = Recorder(project.record("inventory"), stage="inventory", quiet=True)
    return Job(project, Machine(), recorder, folders, "captioning", True, 0.1)


def look(job: Job) -> None:
    """Look as the stage does, without the recognition of the archive's layout."""
    listed = {
        name: (job.folders[name], as_table(inventory.list_folder(name, job.folders)))
        for name in inventory.NAMES
    }
    vanished.require_present(job.project, listed, job.files_gone)


def remove(folder: Path, number: int) -> None:
    for path in sorted(folder.iterdir())[:number]:
        path.unlink()


def test_more_than_the_share_stops_until_it_is_accepted_once(job: Job) -> None:
    look(job)
    remove(job.folders["source"], 11)
    look(job)  # a tenth, and that is the new state
    remove(job.folders["source"], 60)
    for _ in range(2):
        with pytest.raises(FilesGoneError, match="60 of 100 of source gone") as caught:
            look(job)
    assert caught.value.exit_code == EXIT_BAD_DATA
    assert "--accept-loss" in caught.value.hint
    assert SECRET not in str(caught.value)
    vanished.accept(job.project)
    look(job)
    remove(job.folders["source"], 30)
    with pytest.raises(FilesGoneError, match="30 of 40"):
        look(job)


def test_an_evaluation_set_that_vanished_is_no_success(job: Job) -> None:
    look(job)
    shutil.rmtree(job.folders["vindr"])
    with pytest.raises(FilesGoneError, match="3 of 3 of vindr gone"):
        look(job)


def test_what_has_moved_or_is_another_folder_is_not_gone(job: Job) -> None:
    look(job)
    source = job.folders["source"]
    (source / "2024").mkdir()
    for path in list(source.glob("*.dcm")):
        path.rename(source / "2024" / path.name)
    look(job)
    other = source.with_name("other")
    other.mkdir()
    job.folders["source"] = other  # type: ignore[index]
    look(job)


def test_no_name_of_a_file_is_kept(job: Job) -> None:
    look(job)
    kept = b"".join(path.read_bytes() for path in job.project.work_dir("inventory").iterdir())
    assert len(kept) > 100 * 16
    assert SECRET.encode() not in kept


def test_the_stage_itself_leaves_the_last_inventory_alone(job: Job) -> None:
    inventory.run(None, job)  # type: ignore[arg-type]
    remove(job.folders["source"], 60)
    with pytest.raises(FilesGoneError):
        inventory.run(None, job)  # type: ignore[arg-type]
    table = storage.read_table(job.project.inventory("source"), INVENTORY, made_by="inventory")
    assert table.num_rows == 111
