"""The served set-up: the demo by a worker, each service of which is killed once on the way."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import served_set_up
from conftest import Scratch
from mlflow import MlflowClient
from served_set_up import SetUp

from lapvqa.project import Project
from lapvqa.retraining import minutes, wanted
from tasks.mlflow_records.registry import WEIGHTS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(served_set_up.missing()), reason=served_set_up.missing()),
]

RUNNING_S = 600.0


@pytest.fixture(scope="module")
def services(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SetUp]:
    """PostgreSQL, S3 storage, Prefect's and MLflow's servers; secrets as `make up` makes them."""
    folder = tmp_path_factory.mktemp("served")
    script = folder / "make_secrets.py"
    script.write_bytes((repository / "docker/make_secrets.py").read_bytes())
    subprocess.run([sys.executable, str(script)], check=True)
    lines = (folder / ".env").read_text().split()
    services = SetUp(repository, folder, dict(line.split("=") for line in lines))
    try:
        services.start("postgres")
        services.start("s3")
        services.once("buckets")
        with ThreadPoolExecutor(2) as together:
            list(together.map(services.start, ("prefect", "mlflow")))
        yield services
    finally:
        services.close()


@pytest.fixture(scope="module")
def project(services: SetUp, new_project: Callable[[], Scratch]) -> Scratch:
    """A project whose servers were killed at some stages, and its worker at another."""
    project = new_project()
    services.start("worker", cwd=project.root)
    wanted.want(Project(project.root), wanted.HAND)
    _ask(services, project)
    _wait_for(project, "ingest")
    services.kill("prefect")
    services.start("prefect")
    _wait_for(project, "pretrain")
    for name in ("mlflow", "postgres", "s3"):
        services.kill(name)
    for name in ("postgres", "s3", "mlflow"):
        services.start(name)
    _wait_for(project, "evaluate-vqa")
    services.kill("worker")  # the round is at work: it goes on, though nobody reads what it prints
    end = time.monotonic() + RUNNING_S
    while not (outcomes := _outcomes(project)):
        assert time.monotonic() < end, services.log("worker")
        time.sleep(1)
    assert outcomes == ["trained"], services.log("worker")
    services.start("worker", cwd=project.root)
    return project


def test_it_ends_as_if_nothing_had_been(project: Scratch, finished: Scratch) -> None:
    assert project.lock == finished.lock
    assert not Project(project.root).wanted.exists()


def test_no_metric_is_lost(project: Scratch, services: SetUp) -> None:
    own = _project(services, project)
    assert own("lapvqa", "sync").returncode == 0
    assert not [path for path in Project(project.root).spool.rglob("*") if path.is_file()]
    lines = Project(project.root).record("pretrain").read_text().splitlines()
    written = [
        (entry["step"], entry["values"]["loss"])
        for entry in map(json.loads, lines)
        if entry["kind"] == "metrics" and "loss" in entry["values"]
    ]
    client = MlflowClient(services.url("mlflow"), services.url("mlflow"))
    found = []
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id], max_results=1000):
            if run.data.tags.get("dvc.stage") == "pretrain":
                history = client.get_metric_history(run.info.run_id, "loss")
                found.append([(point.step, point.value) for point in history])
    assert len(written) > 5
    assert any(sorted(points) == sorted(written) for points in found)


def test_no_artefact_is_torn(project: Scratch, services: SetUp, tmp_path: Path) -> None:
    client = MlflowClient(services.url("mlflow"), services.url("mlflow"))
    [model] = client.search_registered_models()
    [version] = client.search_model_versions(f"name='{model.name}'")
    script = (
        "import sys; from mlflow.artifacts import download_artifacts;"
        f"download_artifacts('models:/{model.name}/{version.version}', dst_path=sys.argv[1])"
    )
    environment = {**os.environ, "MLFLOW_TRACKING_URI": services.url("mlflow")}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, check=True)
    digests = {_sha256(path) for path in tmp_path.rglob("*") if path.is_file()}
    assert _sha256(project.root / "models/captioning" / WEIGHTS) in digests


def test_push_and_pull_bring_all_of_it(project: Scratch, services: SetUp, tmp_path: Path) -> None:
    own = _project(services, project)
    pushed = own("dvc", "push", "--quiet")
    assert pushed.returncode == 0, pushed.stderr
    copy = Scratch(tmp_path / "copy")
    project.run("git", "add", "-A")
    project.run(
        "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "trained"
    )  # fmt: skip
    project.run("git", "clone", "-q", str(project.root), str(copy.root))
    (copy.root / ".dvc/config.local").write_bytes((project.root / ".dvc/config.local").read_bytes())
    pulled = _project(services, copy)("dvc", "pull", "--quiet")
    assert pulled.returncode == 0, pulled.stderr
    for name in ("models/captioning/model_best.pt", "results/rrg/predictions.parquet"):
        assert _sha256(copy.root / name) == _sha256(project.root / name)


def _project(services: SetUp, project: Scratch) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return what runs a command as the worker would."""
    environment = {**services.environment("worker"), "PYTHONPATH": str(project.root)}
    return lambda *command: subprocess.run(
        command, cwd=project.root, env=environment, text=True, capture_output=True, check=False
    )


def _ask(services: SetUp, project: Scratch) -> None:
    """Have Prefect run the project's deployment now."""
    from tasks.prefect_deployment import FLOW, name_of

    name = f"{FLOW}/{name_of(Project(project.root))}"
    done = _project(services, project)("prefect", "deployment", "run", name)
    assert done.returncode == 0, done.stdout + done.stderr


def _wait_for(project: Scratch, stage: str) -> None:
    """Wait until a stage has begun."""
    record, end = project.root / f".lapvqa/records/{stage}.jsonl", time.monotonic() + RUNNING_S
    while not record.exists():
        assert time.monotonic() < end, f"{stage} has not begun"
        time.sleep(0.1)


def _outcomes(project: Scratch) -> list[str]:
    """Return how the rounds have ended, as the ledger tells."""
    return [str(told["outcome"]) for told in minutes.rounds(Project(project.root))]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
