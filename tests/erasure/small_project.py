"""The archive and the project of this folder's tests, and the erasure's view of it."""

from __future__ import annotations

import shutil
from pathlib import Path

from jobs import run_until_pretraining
from made_dicom import write_mimic, write_project

from lapvqa.erasure.erase import Place
from lapvqa.erasure.stores import project_stores
from lapvqa.identity import Keyring
from lapvqa.machine import load_machine
from lapvqa.params import load_params
from lapvqa.project import Project

KEY = "0123456789abcdef" * 2
PATIENTS = 8
GONE = "10000001"
SENTENCE = "A heron of grey marble, d'après nature, stands in the left lung"


def write_archive(folder: Path) -> None:
    write_mimic(folder, patients=PATIENTS, studies=2, images=1)
    report = next((folder / f"files/p10/p{GONE}").glob("*.txt"))
    report.write_text(f"FINAL REPORT\n FINDINGS: {SENTENCE}.\n")


def new_project(root: Path, archive: Path) -> Project:
    """A project over the archive, up to the firewall; shards of four images."""
    project = write_project(root, archive, workers=1, shard_images=4)
    project.state.mkdir(parents=True)
    (project.state / "deid.key").write_text(KEY)
    bring_up_to_date(project)
    return project


def bring_up_to_date(project: Project) -> None:
    """The stages before pretraining, as DVC runs them: without the outputs of the run before."""
    shutil.rmtree(project.root / "data", ignore_errors=True)
    run_until_pretraining(project, load_machine(project))


def copy_of(read: Path, root: Path) -> Project:
    shutil.copytree(read / "project", root / "project", copy_function=shutil.copy2)
    return Project(root / "project")


def with_own_archive(read: Path, folder: Path) -> Project:
    """Copy project and archive, so that the archive can be changed; not up to date with it."""
    shutil.copytree(read, folder, copy_function=shutil.copy2)
    root = folder / "project"
    text = (root / "local.yaml").read_text().replace(str(read), str(folder))
    (root / "local.yaml").write_text(text)
    return Project(root)


def place(project: Project, *, request: str = "R1") -> Place:
    """The erasure's view of the project, with no DVC, MLflow or Prefect."""
    archive = load_machine(project).folder("source", load_params(project.params).inventory, project)
    return Place(
        project, Keyring(KEY.encode()), archive, "captioning",
        stores=project_stores(project, [archive], [], request), tables=[],
        renew=lambda: bring_up_to_date(project), mark_versions=lambda name, weights: [],
    )  # fmt: skip
