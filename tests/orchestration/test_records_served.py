"""Records and a real MLflow server that dies, hangs and comes back: none lost, none doubled."""

from __future__ import annotations

import json
import math
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow_server import MlflowServer
from running_toy import sync_records, wait_until

from lapvqa.machine import load_machine
from lapvqa.project import Project
from tasks.mlflow_records import spool, streaming
from tasks.mlflow_records.records import Records

pytestmark = [pytest.mark.slow]

# A stage: two metrics, a hundred times a second, until it is told to stop; it prints how long it
# was held up.
STAGE = """
import json, sys, time
from pathlib import Path
from lapvqa.recorder import Recorder
recorder = Recorder(Path(sys.argv[1]), stage="pretrain", machine_readable=True)
stop = Path(sys.argv[2])
longest, step, end = 0.0, 0, time.monotonic() + 280
while not stop.exists() and time.monotonic() < end:
    began = time.perf_counter()
    loss = float("nan") if step % 97 == 0 else 1 / (step + 1)
    recorder.metrics({"loss": loss, "recall@5": step / 7}, step=step)
    longest = max(longest, time.perf_counter() - began)
    step += 1
    time.sleep(0.01)
recorder.facts({"device": "cpu"})
recorder.close()
print(json.dumps({"steps": step, "longest": longest}))
"""
MEANT_TO_BE_SHORT_S = 10.0
STARTING_S = 90.0
"""A server that starts, and a client's import beside it, on a machine that does other things."""
MORE_S = 1.5  # of writing, after what a test has done to the server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """Start the one server of this module; each test leaves it running."""
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    server.start()
    yield server
    server.kill()


@dataclass
class ServedProject:
    """A project whose records go to a server, and a run of one stage in it."""

    project: Project
    records: Records
    warnings: list[str]

    def begin(self) -> None:
        self.records.open()
        self.records.begin(
            "pretrain",
            {"pretrain": {"lr": 1e-3}},
            {"git.commit": "c0ffee", "dvc.stage": "pretrain"},
        )

    def write(self) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-c",
            STAGE,
            str(self.project.record("pretrain")),
            str(self.stop),
        ]
        return subprocess.Popen(command, text=True, stdout=subprocess.PIPE)

    def told(self, stage: subprocess.Popen[str]) -> int:
        """Stop the stage and return its steps; a line must never have been held up."""
        time.sleep(MORE_S)
        self.stop.touch()
        facts = json.loads(stage.communicate(timeout=60)[0])
        assert facts["longest"] < MEANT_TO_BE_SHORT_S
        return int(facts["steps"])

    @property
    def stop(self) -> Path:
        return self.project.root / "stop"

    def end(self) -> None:
        self.records.end(
            "pretrain", spool.FINISHED, tags={"dvc.out.models/m.pt": "0" * 32},
            inputs={"data/images": "1" * 32 + ".dir"}, metrics={"trained.mean_auc": 0.9},
        )  # fmt: skip

    def sync(self) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", "sync"], cwd=self.project.root,
            text=True, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def waiting(self) -> list[Path]:
        return [path for path in self.project.spool.rglob("*") if path.is_file()]


@pytest.fixture
def project(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], ServedProject]:
    """Return a maker of projects that are told of a server; streams are quick here."""
    monkeypatch.setattr(streaming, "_INTERVAL_S", 0.3)
    monkeypatch.setattr(streaming, "_LONGEST_PAUSE_S", 1.0)

    def make(uri: str) -> ServedProject:
        project = Project(tmp_path)
        for name in ("dvc.yaml", "params.yaml"):
            shutil.copy(repository / name, tmp_path)
        project.local.write_text(f"servers:\n  mlflow_tracking_uri: {uri}\n")
        warnings: list[str] = []
        records = Records(project, load_machine(project), warn=warnings.append)
        return ServedProject(project, records, warnings)

    return make


def stage_run(server: MlflowServer, project: ServedProject) -> Any:
    """Return the one run of the stage that the server has of this project."""
    run = project.records._pipeline.run
    client = MlflowClient(tracking_uri=server.uri)
    experiment = client.get_experiment_by_name("lapvqa").experiment_id
    found = client.search_runs([experiment], f"tags.`lapvqa.run` = '{run}'")
    by_stage = {one.data.tags["lapvqa.stage"]: one for one in found}
    assert sorted(by_stage) == ["", "pretrain"]
    assert len(found) == 2
    assert by_stage["pretrain"].data.tags["mlflow.parentRunId"] == by_stage[""].info.run_id
    return by_stage["pretrain"]


def check_all_is_there_once(server: MlflowServer, project: ServedProject, steps: int) -> None:
    """Check points, tags, parameters, inputs and artifacts, by the client and in the store."""
    run, client = stage_run(server, project), MlflowClient(tracking_uri=server.uri)
    run_id = run.info.run_id
    assert run.info.status == "FINISHED"
    wanted = {
        "loss": [math.nan if step % 97 == 0 else 1 / (step + 1) for step in range(steps)],
        "recall_5": [step / 7 for step in range(steps)],
    }
    for key, values in wanted.items():
        history = sorted(client.get_metric_history(run_id, key), key=lambda one: one.step)
        assert [one.step for one in history] == list(range(steps))
        assert [repr(one.value) for one in history] == [repr(value) for value in values]
    rows = server.rows(
        "select key, count(*), count(distinct step) from metrics "
        f"where run_uuid = '{run_id}' and key not like 'system/%' group by key order by key"
    )
    assert rows == [("loss", steps, steps), ("recall_5", steps, steps), ("trained.mean_auc", 1, 1)]
    assert server.rows(
        f"select key, step from metrics where run_uuid = '{run_id}' group by key, step "
        "having count(*) > 1"
    ) == []  # fmt: skip
    assert run.data.params == {"pretrain.lr": "0.001"}
    assert run.data.tags["fact.device"] == "cpu"
    assert run.data.tags["dvc.out.models/m.pt"] == "0" * 32
    inputs = [(one.dataset.name, one.dataset.digest) for one in run.inputs.dataset_inputs]
    assert inputs == [("data/images", "1" * 32 + ".dir")]
    files = [file.path for file in client.list_artifacts(run_id, "records")]
    assert files == ["records/lines.jsonl"]


def points(server: MlflowServer, project: ServedProject) -> int:
    """Return how many points of the stage the store holds."""
    [(count,)] = server.rows(
        "select count(*) from metrics m join tags t on t.run_uuid = m.run_uuid "
        f"where t.key = 'lapvqa.run' and t.value = '{project.records._pipeline.run}' "
        "and m.key not like 'system/%'"
    )
    return int(str(count))


def timed(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def test_killed_in_the_middle_and_synced_later(
    server: MlflowServer, project: Callable[[str], ServedProject]
) -> None:
    ours = project(server.uri)
    ours.begin()
    stage = ours.write()
    wait_until(lambda: points(server, ours) > 100, seconds=STARTING_S)
    server.kill()
    shipped = points(server, ours)
    steps = ours.told(stage)
    ending, closing_ = timed(ours.end), timed(lambda: ours.records.close(spool.FINISHED))
    assert ending < streaming.PATIENCE_S + MEANT_TO_BE_SHORT_S
    assert closing_ < MEANT_TO_BE_SHORT_S
    assert 0 < shipped < 2 * steps
    assert ours.waiting
    assert len(ours.warnings) == 1

    server.start()
    assert "2 runs brought into MLflow" in ours.sync()
    check_all_is_there_once(server, ours, steps)
    before = server.rows("select * from metrics order by 1, 2, 3, 4, 5, 6")
    assert "nothing waits" in ours.sync()
    assert sync_records(ours.project) == 0
    assert server.rows("select * from metrics order by 1, 2, 3, 4, 5, 6") == before
    assert not ours.waiting


def test_back_during_the_run_the_stream_goes_on(
    server: MlflowServer,
    project: Callable[[str], ServedProject],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A server that is slow because the machine is busy must not pass for one that hangs.
    monkeypatch.setattr(streaming, "PATIENCE_S", STARTING_S)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    ours = project(server.uri)
    server.kill()
    ours.begin()  # without a server, so the stream opens the run as well
    assert ours.warnings
    stage = ours.write()
    wait_until(lambda: ours.project.record("pretrain").exists(), seconds=STARTING_S)
    server.start()
    wait_until(lambda: points(server, ours) > 100, seconds=STARTING_S)
    assert stage.poll() is None, "the points came before the stage was over"
    server.kill()
    shipped = points(server, ours)
    server.start()
    wait_until(lambda: points(server, ours) > shipped, seconds=STARTING_S)
    steps = ours.told(stage)
    wait_until(lambda: points(server, ours) == 2 * steps, seconds=STARTING_S)
    ours.end()
    ours.records.close(spool.FINISHED)
    assert not ours.waiting, "the end ships what is missing"
    check_all_is_there_once(server, ours, steps)


def test_halted_server_holds_nobody_up(
    server: MlflowServer, project: Callable[[str], ServedProject]
) -> None:
    ours = project(server.uri)
    ours.begin()
    stage = ours.write()
    wait_until(lambda: points(server, ours) > 100, seconds=STARTING_S)
    server.send(signal.SIGSTOP)
    try:
        steps = ours.told(stage)
        ending, closing_ = timed(ours.end), timed(lambda: ours.records.close(spool.FINISHED))
    finally:
        server.send(signal.SIGCONT)
    assert ending < streaming.PATIENCE_S + MEANT_TO_BE_SHORT_S
    assert closing_ < MEANT_TO_BE_SHORT_S
    assert sync_records(ours.project) == 2
    check_all_is_there_once(server, ours, steps)
    assert not ours.waiting


def test_server_that_accepts_and_never_answers(project: Callable[[str], ServedProject]) -> None:
    with closing(socket.create_server(("127.0.0.1", 0), backlog=64)) as deaf:
        ours = project(f"http://127.0.0.1:{deaf.getsockname()[1]}")
        beginning = timed(ours.begin)
        stage = ours.write()
        ours.told(stage)
        ending, closing_ = timed(ours.end), timed(lambda: ours.records.close(spool.FINISHED))
    assert beginning < 3.0 + MEANT_TO_BE_SHORT_S, "one look for it, not one per call"
    assert ending < streaming.PATIENCE_S + MEANT_TO_BE_SHORT_S
    assert closing_ < MEANT_TO_BE_SHORT_S
    assert len(ours.warnings) == 1
    assert ours.waiting
