"""A small archive in MIMIC-CXR's layout, and a project that has read and tokenised it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parents[1] / name) for name in ("dicom", "e2e")]

from jobs import make_job
from made_dicom import copy_archive, write_mimic, write_project

from lapvqa import inventory
from lapvqa.erasure.erase import Place
from lapvqa.erasure.stores import project_stores
from lapvqa.identity import Keyring
from lapvqa.ingest import ingest
from lapvqa.machine import load_machine
from lapvqa.params import load_params
from lapvqa.project import Project
from lapvqa.recorder import Recorder
from lapvqa.text import tokens

KEY = "0123456789abcdef" * 2
PATIENTS = 8
GONE = "10000001"
SENTENCE = "A heron of grey marble stands in the left lung"


@pytest.fixture(scope="session")
def mimic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive") / "mimic"
    write_mimic(folder, patients=PATIENTS, studies=2, images=1)
    report = next((folder / f"files/p10/p{GONE}").glob("*.txt"))
    report.write_text(f"FINAL REPORT\n FINDINGS: {SENTENCE}.\n")
    return folder


def new_project(root: Path, archive: Path) -> Project:
    """A project over the archive, up to tokens; two shards of four images at first."""
    project = write_project(root, archive, workers=1, shard_images=4)
    project.state.mkdir(parents=True)
    (project.state / "deid.key").write_text(KEY)
    bring_up_to_date(project)
    return project


def bring_up_to_date(project: Project) -> None:
    """Inventory, ingest, tokens, as DVC runs them: without the outputs of the run before."""
    shutil.rmtree(project.root / "data", ignore_errors=True)
    params, machine = load_params(project.params), load_machine(project)
    for name, function, section in (
        ("inventory", inventory.run, params.inventory),
        ("ingest", ingest.run, params.ingest),
        ("tokens", tokens.run, params.tokens),
    ):
        project.work_dir(name).mkdir(parents=True, exist_ok=True)
        recorder = Recorder(project.record(name), stage=name, quiet=True)
        try:
            function(section, make_job(project, machine, recorder))  # type: ignore[operator]
        finally:
            recorder.close()


@pytest.fixture(scope="session")
def read(tmp_path_factory: pytest.TempPathFactory, mimic: Path) -> Path:
    """Archive and project that tests copy."""
    root = tmp_path_factory.mktemp("read")
    copy_archive(mimic, root / "archive")
    new_project(root / "project", root / "archive")
    return root


@pytest.fixture
def project(read: Path, tmp_path: Path) -> Project:
    """A project of one's own over the archive of all, which stays as it is."""
    return copy_of(read, tmp_path)


def copy_of(read: Path, root: Path) -> Project:
    shutil.copytree(read / "project", root / "project", copy_function=shutil.copy2)
    return Project(root / "project")


@pytest.fixture
def apart(read: Path, tmp_path: Path) -> Project:
    """A project with an archive of its own beside it, to be changed."""
    shutil.copytree(read, tmp_path / "own", copy_function=shutil.copy2)
    root = tmp_path / "own/project"
    text = (root / "local.yaml").read_text().replace(str(read), str(tmp_path / "own"))
    (root / "local.yaml").write_text(text)
    bring_up_to_date(Project(root))  # the finished work belongs to an archive's place
    return Project(root)


def place(project: Project, *, request: str = "R1") -> Place:
    """The erasure's view of the project, with no DVC, MLflow or Prefect."""
    archive = load_machine(project).folder("source", load_params(project.params).inventory, project)
    return Place(
        project, Keyring(KEY.encode()), archive, "captioning",
        stores=project_stores(project, [archive], [], request), tables=[],
        renew=lambda: bring_up_to_date(project), mark_versions=lambda name, weights: [],
    )  # fmt: skip
