"""MLflow's records when MLflow is down, killed or asked twice."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from lapvqa.config import Machine, Servers
from lapvqa.layout import Layout
from lapvqa.recorder import Recorder
from tasks import spool
from tasks.records import Records, sync_records

pytestmark = pytest.mark.xdist_group("orchestration")

DOWN = Machine(servers=Servers(mlflow_tracking_uri="http://127.0.0.1:9"))
LOSSES = [1.0, float("nan"), 0.25]


def one_stage(records: Records, layout: Layout) -> None:
    """Record a run of one stage, as ``run_stage`` does."""
    records.begin("pretrain", {"pretrain": {"lr": 1e-3, "grid": [1, 2]}}, {"git.commit": "c0ffee"})
    recorder = Recorder(layout.record("pretrain"), stage="pretrain", machine_readable=True)
    for step, loss in enumerate(LOSSES):
        recorder.metrics({"loss": loss}, step=step)
    recorder.facts({"device": "cpu"})
    recorder.summary({"steps": 3})
    recorder.close()
    records.end(
        spool.FINISHED,
        tags={"dvc.out.models/m.pt": "0" * 32},
        inputs={"data/images": "1" * 32 + ".dir"},
        metrics={"trained.mean_auc": 0.9},
    )


def everything(layout: Layout) -> dict[str, object]:
    """Return all that MLflow knows, without its own ids."""
    client = MlflowClient(tracking_uri=f"sqlite:///{layout.mlflow_db}")
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
            [file.path for file in client.list_artifacts(run_id, "records")],
        )  # fmt: skip
    return runs


def test_down_means_warned_spooled_and_brought_in_later(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    warnings: list[str] = []
    records = Records(layout, DOWN, warn=warnings.append)
    began = time.monotonic()
    records.open()
    one_stage(records, layout)
    records.close(spool.FINISHED)
    assert time.monotonic() - began < 10, "a server that is down must not hold the run up"
    assert len(warnings) == 1
    assert "MLflow" in warnings[0]
    assert records.pipeline_run is None
    # The next run of the stage overwrites its lines; the spool has its own.
    layout.record("pretrain").unlink()

    assert sync_records(layout) == 2
    found = everything(layout)
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
    assert files == ["records/lines.jsonl"]
    assert found[""][0] == "FINISHED"
    assert sync_records(layout) == 0
    assert everything(layout) == found


def test_shipping_twice_adds_nothing(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    records = Records(layout, DOWN, warn=lambda _: None)
    records.open()
    one_stage(records, layout)
    records.close(spool.FINISHED)
    waiting = {path: path.read_bytes() for path in layout.spool.rglob("*") if path.is_file()}
    sync_records(layout)
    found = everything(layout)
    for path, content in waiting.items():  # as after a crash between shipping and forgetting
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert sync_records(layout) == 2
    assert everything(layout) == found


def test_streamed_and_shipped_records_are_the_same(tmp_path: Path) -> None:
    online, offline = Layout(tmp_path / "online"), Layout(tmp_path / "offline")
    for layout, machine in ((online, Machine()), (offline, DOWN)):
        records = Records(layout, machine, warn=lambda _: None)
        records.open()
        one_stage(records, layout)
        records.close(spool.FINISHED)
    sync_records(offline)
    for found in (everything(online), everything(offline)):
        histories = found["pretrain"][5]
        values = [(step, value) for step, _, value in histories["loss"]]
        assert values == [(0, "1.0"), (1, "nan"), (2, "0.25")]
    assert not list(online.spool.rglob("*.json*")), "nothing waits once MLflow has it"


def test_what_a_killed_run_left_is_closed_by_the_next(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    killed = Records(layout, Machine(), warn=lambda _: None)
    killed.open()
    killed.begin("pretrain", {}, {"git.commit": "c0ffee"})
    recorder = Recorder(layout.record("pretrain"), stage="pretrain", machine_readable=True)
    recorder.metrics({"loss": 1.0}, step=0)
    recorder.close()
    # No end: the process is gone. Its lines are still there.
    following = Records(layout, Machine(), warn=pytest.fail)
    following.open()
    found = everything(layout)
    assert {stage: facts[0] for stage, facts in found.items()} == {
        "": "KILLED",
        "pretrain": "KILLED",
    }
    assert [(step, value) for step, _, value in found["pretrain"][5]["loss"]] == [(0, "1.0")]
    assert not list(layout.spool.rglob("*.json*"))
