"""What a killed run owes is made up for, once; and a copied project works in its own place only."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from running_toy import Finished, Toy

from lapvqa import storage
from lapvqa.lineage import ledger, recording
from lapvqa.project import Project
from lapvqa.uptodate import manifest
from lapvqa.uptodate.stagefile import locked
from tasks.mlflow_records.registry import CANDIDATE, MODEL


def client(project: Project) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{project.mlflow_db}")


def sync(toy: Toy) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "sync"],
        cwd=toy.root, env=toy.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def candidate(project: Project) -> str:
    version = client(project).get_model_version_by_alias(MODEL, CANDIDATE)
    assert version.source is not None
    assert version.source.startswith(project.mlflow_artifacts.as_uri())
    return str(version.tags["sha256"])


def test_a_run_killed_at_its_end_is_made_up_for(
    copied: Toy, finished: tuple[Toy, Finished]
) -> None:
    original, project = finished[0].project, copied.project
    before, told = files(original.state), len(recording.told(project))
    project.params.write_text(
        project.params.read_text().replace("\n  seed: 0\n", "\n  seed: 7\n", 1)
    )
    run = copied.start()
    assert run.stdout is not None
    lines = []
    for line in run.stdout:
        lines.append(line)
        if line.startswith(("report: ran", "report: up to date")):
            run.kill()
            break
    run.wait()
    assert project.unsettled.exists(), "".join(lines)

    said = sync(copied)
    assert "brought into MLflow" in said
    assert not project.unsettled.exists()
    weights = project.model_dir("captioning") / "encoder.safetensors"
    assert candidate(project) == storage.sha256_file(weights)
    models = [entry.payload for entry in ledger.entries(project) if entry.kind == ledger.MODEL]
    assert models[-1] is not None
    assert models[-1]["sha256"] == candidate(project)
    assert recording.untold(project) == []
    statuses = {run.info.status for run in client(project).search_runs(["1"])}
    assert "RUNNING" not in statuses
    assert files(original.state) == before, "a copy writes into its own place"

    versions = len(client(project).search_model_versions(f"name = '{MODEL}'"))
    entries = len(recording.told(project))
    assert entries > told
    assert "nothing waits" in sync(copied)
    assert len(client(project).search_model_versions(f"name = '{MODEL}'")) == versions
    assert len(recording.told(project)) == entries


def test_what_was_known_of_the_old_place_is_void(copied: Toy, tmp_path: Path) -> None:
    manifest.remember(copied.project)
    assert manifest.load(copied.project) is not None
    moved = tmp_path / "moved"
    shutil.move(copied.root, moved)
    assert manifest.load(Project(moved)) is None


@pytest.mark.parametrize("stage", ["tokens", "pretrain"])
def test_each_run_names_the_runs_that_it_stands_on(
    finished: tuple[Toy, Finished], stage: str
) -> None:
    project = finished[0].project
    run = next(run for run in recording.told(project) if run.stage == stage)
    assert run.sources.keys() == run.deps.keys() == locked(project)[stage].deps.keys()
