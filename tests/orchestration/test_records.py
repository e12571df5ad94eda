"""MLflow's records when MLflow is down, killed or asked twice."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import migrated_stores
import pytest
from mlflow import MlflowClient
from others_at_work import files_below
from running_toy import sync_records, wait_until

from lapvqa import storage
from lapvqa.machine import Machine, Servers
from lapvqa.project import Project
from lapvqa.recorder import Recorder
from tasks.mlflow_records import shipping, spool, streaming, view
from tasks.mlflow_records.connection import RecordsUnavailableError, connect
from tasks.mlflow_records.records import Records, RecordsRefusedError

DOWN = Machine(servers=Servers(mlflow_tracking_uri="http://127.0.0.1:9"))
LOSSES = [1.0, float("nan"), 0.25]


@pytest.fixture(autouse=True)
def quick_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ship every fifth of a second, not every other one; wait long for a store under load."""
    monkeypatch.setattr(streaming, "_INTERVAL_S", 0.2)
    monkeypatch.setattr(streaming, "PATIENCE_S", 60.0)


@pytest.fixture(autouse=True)
def store(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Give the test's project a store of MLflow's that is empty and whose tables are made."""
    migrated_stores.give(tmp_path_factory, Project(tmp_path))


def one_stage(records: Records, project: Project) -> None:
    """Record a run of one stage, as ``run_stage`` does."""
    records.begin("pretrain", {"pretrain": {"lr": 1e-3, "grid": [1, 2]}}, {"git.commit": "c0ffee"})
    recorder = Recorder(project.record("pretrain"), stage="pretrain", machine_readable=True)
    for step, loss in enumerate(LOSSES):
        recorder.metrics({"loss": loss}, step=step)
    recorder.facts({"device": "cpu"})
    recorder.summary({"steps": 3})
    recorder.close()
    storage.write_bytes(project.pictures_dir / "rrg.svg", b"<svg/>")
    records.end(
        "pretrain",
        spool.FINISHED,
        pictures=project.pictures_dir,
        tags={"dvc.out.models/m.pt": "0" * 32},
        inputs={"data/images": "1" * 32 + ".dir"},
        metrics={"trained.mean_auc": 0.9},
    )


def everything(project: Project) -> dict[str, object]:
    """Return all that MLflow knows, without its own ids."""
    client = MlflowClient(tracking_uri=f"sqlite:///{project.mlflow_db}")
    runs = {}
    for run in client.search_runs(["1"]):
        run_id = run.info.run_id
        histories = {
            key: [
                (m.step, m.timestamp, repr(m.value)) for m in client.get_metric_history(run_id, key)
            ]
            for key in run.data.metrics
        }
        inputs = [(one.dataset.name, one.dataset.digest) for one in run.inputs.dataset_inputs]
        runs[run.data.tags["lapvqa.stage"]] = (
            run.info.status, run.info.start_time, run.info.end_time, run.data.params, run.data.tags,
            histories, inputs,
            [file.path for folder in ("records", "pictures")
             for file in client.list_artifacts(run_id, folder)],
        )  # fmt: skip
    return runs


def test_down_means_warned_spooled_and_brought_in_later(tmp_path: Path) -> None:
    project = Project(tmp_path)
    warnings: list[str] = []
    records = Records(project, DOWN, warn=warnings.append)
    began = time.monotonic()
    records.open()
    one_stage(records, project)
    records.close(spool.FINISHED, note="| rrg | 0.5 |")
    assert time.monotonic() - began < 10, "a server that is down must not hold the run up"
    assert len(warnings) == 1
    assert "MLflow" in warnings[0]
    assert records.pipeline_run is None
    # The next run of the stage overwrites its lines; the spool has its own.
    project.record("pretrain").unlink()
    shutil.rmtree(project.pictures_dir)

    assert sync_records(project) == 2
    found = everything(project)
    status, start, end, params, tags, histories, inputs, files = found["pretrain"]
    assert status == "FINISHED"
    assert params == {"pretrain.lr": "0.001", "pretrain.grid": "[1, 2]"}
    assert [(step, value) for step, _, value in histories["loss"]] == [
        (0, "1.0"), (1, "nan"), (2, "0.25"),
    ]  # fmt: skip
    assert all(start <= time_ms <= end for _, time_ms, _ in histories["loss"])
    assert histories["trained.mean_auc"][0][2] == "0.9"
    assert tags["fact.device"] == "cpu"
    assert tags["dvc.out.models/m.pt"] == "0" * 32
    assert inputs == [("data/images", "1" * 32 + ".dir")]
    assert files == ["records/lines.jsonl", "pictures/rrg.svg"]
    assert found[""][0] == "FINISHED"
    assert found[""][4]["mlflow.note.content"] == "| rrg | 0.5 |"
    assert sync_records(project) == 0
    assert everything(project) == found


def test_the_table_of_runs_has_a_column_per_primary_metric(tmp_path: Path) -> None:
    store = connect(Project(tmp_path), Machine())
    address = view.link(store)
    tags = store.client.get_experiment(store.experiment).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    _, _, name = address.partition("viewStateShareKey=")
    columns = json.loads(tags[f"mlflow.sharedViewState.{name}"])["selectedColumns"]
    assert {"metrics.`rrg.finding_f1_micro`", "params.`pretrain.lr`"} <= set(columns)


def test_shipping_twice_adds_nothing(tmp_path: Path) -> None:
    project = Project(tmp_path)
    records = Records(project, DOWN, warn=lambda _: None)
    records.open()
    one_stage(records, project)
    records.close(spool.FINISHED)
    waiting = {path: path.read_bytes() for path in project.spool.rglob("*") if path.is_file()}
    sync_records(project)
    found = everything(project)
    for path, content in waiting.items():  # as after a crash between shipping and forgetting
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert sync_records(project) == 2
    assert everything(project) == found


def test_streamed_and_shipped_records_are_the_same(tmp_path: Path) -> None:
    online, offline = Project(tmp_path / "online"), Project(tmp_path / "offline")
    for project, machine in ((online, Machine()), (offline, DOWN)):
        records = Records(project, machine, warn=lambda _: None)
        records.open()
        one_stage(records, project)
        records.close(spool.FINISHED)
    sync_records(offline)
    for found in (everything(online), everything(offline)):
        histories = found["pretrain"][5]
        values = [(step, value) for step, _, value in histories["loss"]]
        assert values == [(0, "1.0"), (1, "nan"), (2, "0.25")]
    assert not list(online.spool.rglob("*.json*")), "nothing waits once MLflow has it"


def test_the_end_of_a_stage_goes_on_with_the_store_that_its_stream_has_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when MLflow comes back a moment before the end: lines have come in, others have not."""
    project, arrived, ship_points = Project(tmp_path), threading.Event(), shipping.ship_points

    def ship_until_over(*arguments: Any, **named: Any) -> None:
        ship_points(*arguments, **named)
        arrived.set()
        while True:
            time.sleep(0.01)
            arguments[4]()  # raises when the stage is over

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    records = Records(project, Machine(), warn=lambda _: None)
    records.open()
    records.begin("pretrain", {}, {"git.commit": "c0ffee"})
    write_losses(project, 10)
    monkeypatch.setattr(shipping, "ship_points", ship_until_over)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert arrived.wait(60)
    monkeypatch.setattr(shipping, "ship_points", ship_points)
    records.end("pretrain", spool.FINISHED, tags={}, inputs={}, metrics={})
    records.close(spool.FINISHED)
    assert losses(project) == list(range(10))
    assert not list(project.spool.rglob("*.json*"))


def test_what_a_killed_run_left_is_closed_by_the_next(tmp_path: Path) -> None:
    project = Project(tmp_path)
    killed = Records(project, Machine(), warn=lambda _: None)
    killed.open()
    killed.begin("pretrain", {}, {"git.commit": "c0ffee"})
    recorder = Recorder(project.record("pretrain"), stage="pretrain", machine_readable=True)
    recorder.metrics({"loss": 1.0}, step=0)
    recorder.close()
    # No end: the process is gone. Its lines are still there.
    following = Records(project, Machine(), warn=pytest.fail)
    following.open()
    found = everything(project)
    assert {stage: facts[0] for stage, facts in found.items()} == {
        "": "KILLED",
        "pretrain": "KILLED",
    }
    assert [(step, value) for step, _, value in found["pretrain"][5]["loss"]] == [(0, "1.0")]
    assert not list(project.spool.rglob("*.json*"))
    # Only its process would be gone: here its stream lives, and sends that point for ever, its mark
    # being lost, also while later tests listen to what is sent.
    killed.discard("pretrain")


def test_a_lost_mark_doubles_nothing(tmp_path: Path) -> None:
    """As when the server took a batch and was killed before it said so."""
    project = Project(tmp_path)
    records = Records(project, Machine(), warn=pytest.fail)
    records.open()
    records.begin("pretrain", {}, {"git.commit": "c0ffee"})
    write_losses(project, 1500)
    wait_until(lambda: all_is_marked(project), seconds=90)
    next(project.spool.rglob("shipped.json")).unlink()
    records.end("pretrain", spool.FINISHED, tags={}, inputs={}, metrics={})
    records.close(spool.FINISHED)
    assert losses(project) == list(range(1500))


def test_what_is_marked_is_not_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project(tmp_path)
    records = Records(project, Machine(), warn=pytest.fail)
    records.open()
    records.begin("pretrain", {}, {"git.commit": "c0ffee"})
    write_losses(project, 2500)
    wait_until(lambda: all_is_marked(project), seconds=90)
    sent: list[str] = []  # the machine's load is sampled until the end, and may be new
    monkeypatch.setattr(shipping, "log_points", lambda *a: sent.extend(one.key for one in a[2]))
    records.end("pretrain", spool.FINISHED, tags={}, inputs={}, metrics={})
    assert "loss" not in sent


def test_one_request_carries_a_thousand_points_at_most(tmp_path: Path) -> None:
    lines = write_losses(Project(tmp_path), 2500)
    first = list(shipping.batches(lines, 0))
    assert [len(metrics) for metrics, _ in first] == [1000, 1000, 500]
    [(rest, end)] = shipping.batches(lines, first[1][1])
    assert [one.step for one in rest] == list(range(2000, 2500))
    assert list(shipping.batches(lines, end)) == []


def test_odd_names_and_damaged_lines_stop_nothing(tmp_path: Path) -> None:
    project = Project(tmp_path)
    records = Records(project, Machine(), warn=pytest.fail)
    records.open()
    records.begin("pretrain", {"recall@": 5}, {"git.commit": "c0ffee"})
    lines = project.record("pretrain")
    recorder = Recorder(lines, stage="pretrain", machine_readable=True)
    recorder.metrics({"recall@5 (text)": 0.5}, step=0)
    recorder.close()
    with lines.open("ab") as handle:
        handle.write(b'{"t": 1.0, "kind": "met\n')
    records.end("pretrain", spool.FINISHED, tags={"dvc.out.a&b": "0"}, inputs={}, metrics={})
    _, _, _, params, tags, histories, _, _ = everything(project)["pretrain"]
    assert params == {"recall_": "5"}
    assert histories["recall_5 _text_"][0][2] == "0.5"
    assert tags["dvc.out.a_b"] == "0"
    assert tags["records.damaged_lines"] == "1", "nothing is skipped silently"


def test_a_run_deleted_meanwhile_is_opened_anew(tmp_path: Path) -> None:
    project = Project(tmp_path)
    records = Records(project, Machine(), warn=lambda _: None)
    records.open()
    deleted = records.begin("pretrain", {}, {"git.commit": "c0ffee"})
    client = MlflowClient(tracking_uri=f"sqlite:///{project.mlflow_db}")
    client.delete_run(deleted)
    write_losses(project, 10)
    wait_until(lambda: losses(project) == list(range(10)), seconds=90)
    records.end("pretrain", spool.FINISHED, tags={}, inputs={}, metrics={})
    records.close(spool.FINISHED)
    assert losses(project) == list(range(10))
    assert client.get_run(deleted).info.lifecycle_stage == "deleted"


def test_a_refused_record_does_not_keep_the_others_back(tmp_path: Path) -> None:
    project = Project(tmp_path)
    records = Records(project, DOWN, warn=lambda _: None)
    records.open()
    one_stage(records, project)
    records.close(spool.FINISHED)
    bad = spool.RunRecord(
        "0" * 32,
        "tokens",
        1.0,
        spool.FINISHED,
        2.0,
        inputs={"data": "a digest of over 36 letters" * 2},
    )
    spool.keep(bad, project.spool)
    with pytest.raises(RecordsRefusedError, match="tokens"):
        sync_records(project)
    assert everything(project)["pretrain"][0] == "FINISHED"
    assert [one.stage for one in spool.waiting(project.spool)] == ["tokens"]


def test_a_discarded_stage_leaves_nothing(tmp_path: Path) -> None:
    project = Project(tmp_path)
    records = Records(project, Machine(), warn=pytest.fail)
    records.open()
    records.begin("pretrain", {}, {"git.commit": "c0ffee"})
    records.discard("pretrain")
    records.close(spool.FINISHED)
    assert everything(project) == {}
    assert not list(project.spool.rglob("*.json*"))


def test_the_machine_s_load_is_recorded_while_mlflow_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "_LOAD_S", 0.05)
    project = Project(tmp_path)
    records = Records(project, DOWN, warn=lambda _: None)
    records.open()
    records.begin("pretrain", {}, {"git.commit": "c0ffee"})
    wait_until(lambda: load_lines(project) > 30, seconds=90)
    records.end("pretrain", spool.FINISHED, tags={}, inputs={}, metrics={})
    records.close(spool.FINISHED)
    sync_records(project)
    history = everything(project)["pretrain"][5]["system/cpu_utilization_percentage"]
    assert sorted(step for step, _, _ in history) == list(range(len(history)))
    assert len(history) >= 10


def test_a_backlog_holds_a_run_up_for_so_long_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path)
    monkeypatch.setattr("tasks.mlflow_records.records.BUDGET_S", -1.0)
    warnings: list[str] = []
    records = Records(project, Machine(), warn=warnings.append)
    records.open()
    one_stage(records, project)
    records.close(spool.FINISHED)
    assert "time allows" in warnings[0]
    assert sync_records(project) == 2, "whoever asks for it waits for all"
    assert len(losses(project)) == len(LOSSES)


def test_a_server_that_is_healthy_and_hangs_costs_one_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As MLflow does when its database has gone."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setattr(streaming, "PATIENCE_S", 5.0)
    warnings: list[str] = []
    with failing_server(hang=True) as address:
        machine = Machine(servers=Servers(mlflow_tracking_uri=f"http://{address}"))
        began = time.monotonic()
        records = Records(Project(tmp_path), machine, warn=warnings.append)
        records.open()
        one_stage(records, Project(tmp_path))
        records.close(spool.FINISHED)
        assert time.monotonic() - began < 2 + 2 + streaming.PATIENCE_S
    assert len(warnings) == 1
    assert sync_records(Project(tmp_path)) == 2


@pytest.mark.parametrize("port", [9, 0])
def test_no_password_in_what_is_said(tmp_path: Path, port: int) -> None:
    """Port 9: nobody there. 0: a server that is healthy and then fails, whose error names it."""
    with failing_server() as address:
        host = address if port == 0 else f"127.0.0.1:{port}"
        uri = f"http://somebody:secret@{host}"
        warnings: list[str] = []
        machine = Machine(servers=Servers(mlflow_tracking_uri=uri))
        records = Records(Project(tmp_path), machine, warn=warnings.append)
        records.open()
        with pytest.raises(RecordsUnavailableError) as caught:
            connect(Project(tmp_path), machine)
    assert host in warnings[0]
    assert "secret" not in warnings[0]
    assert "secret" not in records.describe()
    assert "secret" not in "".join(traceback.format_exception(caught.value))


def write_losses(project: Project, steps: int) -> Path:
    recorder = Recorder(project.record("pretrain"), stage="pretrain", machine_readable=True)
    for step in range(steps):
        recorder.metrics({"loss": 1 / (step + 1)}, step=step)
    recorder.close()
    return project.record("pretrain")


def all_is_marked(project: Project) -> bool:
    """Say whether the mark of what MLflow has stands at the end of pretraining's lines."""
    marks = map(json.loads, lying(project, "shipped.json"))
    return project.record("pretrain").stat().st_size in [
        at for mark in marks for at in mark.values()
    ]


def losses(project: Project) -> list[int]:
    """Return the steps whose loss MLflow's store has, as often as it has them."""
    query = (
        "select step from metrics m join runs r using (run_uuid) "
        "where key = 'loss' and r.lifecycle_stage = 'active' order by step"
    )
    with closing(sqlite3.connect(project.mlflow_db, timeout=30)) as database:
        return [step for (step,) in database.execute(query)]


def load_lines(project: Project) -> int:
    return sum(content.count(b"\n") for content in lying(project, "load.jsonl"))


def lying(project: Project, name: str) -> list[bytes]:
    """Return what files of this name hold that wait for MLflow; they go while one looks."""
    contents = []
    for path in files_below(project.spool, name):
        with suppress(FileNotFoundError):
            contents.append(path.read_bytes())
    return contents


@contextmanager
def failing_server(*, hang: bool = False) -> Iterator[str]:
    """Yield the address of a server whose health is good and that breaks every other call."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/health":
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                over.wait(60 if hang else 0)
                self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        over.set()
        server.shutdown()
