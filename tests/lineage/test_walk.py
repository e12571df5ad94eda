"""From any result up to the inventory, whoever made it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lapvqa.errors import ConfigError
from lapvqa.lineage import ledger, recording, walk
from lapvqa.lineage.recording import Commit
from lapvqa.lineage.runs import Run
from lapvqa.lineage.walk import ArtefactNode, Lineage
from lapvqa.project import Project
from lapvqa.uptodate import stagefile

METRICS = "results/probe_nih14/metrics.json"


def record(project: Project, *, started: float = 1000.0, suffix: str = "") -> None:
    """Write the ledger as a run of the pipeline would."""
    for number, lock in enumerate(stagefile.locked(project).values()):
        run = Run(
            lock.name, started + number, 0.5,
            prefect_flow_run=f"flow{suffix}", prefect_task_run=f"task-{lock.name}{suffix}",
            mlflow_run=f"mlflow-{lock.name}{suffix}",
        )  # fmt: skip
        recording.record(project, run, Commit("c" * 40, False))


def node(lineage: Lineage, path: str) -> ArtefactNode:
    (found,) = [node for key, node in lineage.nodes.items() if key.path == path]
    return found


def test_a_metrics_file_reaches_the_inventory(toy: Project) -> None:
    record(toy)
    lineage = walk.trace(toy, METRICS)
    assert next(iter(lineage.nodes))[0] == METRICS
    assert {key.path for key in lineage.nodes} == {
        METRICS, "data/inventory/nih14.parquet", "data/tokens", "data/studies.parquet",
        "data/inventory/source.parquet",
    }  # fmt: skip
    inventory = node(lineage, "data/inventory/source.parquet")
    assert inventory.facts == {"files": 2, "bytes": 2}
    assert inventory.origin is not None
    assert inventory.origin.stage == "inventory"
    tokens = node(lineage, "data/tokens").origin
    assert tokens is not None
    assert tokens.code is not None
    assert set(tokens.code.listing) == {"lapvqa/text"}
    assert tokens.run.params["tokens"]["max_length"] == 64
    assert tokens.run.commit == "c" * 40
    assert (tokens.run.prefect_task_run, tokens.run.mlflow_run) == ("task-tokens", "mlflow-tokens")


def test_md5s_are_those_of_dvc_lock(toy: Project) -> None:
    record(toy)
    locks = stagefile.locked(toy)
    for key, found in walk.trace(toy, "reports/index.html").nodes.items():
        if found.origin and not key.path.startswith("data/inventory/"):
            assert locks[found.origin.stage].outs[key.path] == key.md5


@pytest.mark.parametrize(
    "asked", ["results/probe_nih14/metrics.json:mean_auc", "probe_nih14.mean_auc"]
)
def test_a_metric_brings_its_value(toy: Project, asked: str) -> None:
    lineage = walk.trace(toy, asked)
    assert lineage.target.metric == "mean_auc"
    assert lineage.target.value == 0.75
    assert lineage.target.artefacts[0][0] == METRICS


@pytest.mark.parametrize("asked", ["mlflow-tokens", "task-tokens"])
def test_a_run_id_names_what_it_made(toy: Project, asked: str) -> None:
    record(toy)
    assert [key.path for key in walk.trace(toy, asked).target.artefacts] == ["data/tokens"]


def test_a_flow_run_names_everything_it_made(toy: Project) -> None:
    record(toy)
    assert len(walk.trace(toy, "flow").target.artefacts) == 6


def test_an_older_run_is_walked_by_the_ledger(toy: Project, dvc: Callable[..., str]) -> None:
    record(toy, suffix="-old")
    before = stagefile.locked(toy)
    toy.params.write_text(toy.params.read_text().replace("max_length: 64 ", "max_length: 128 "))
    dvc(toy.root, "repro", "-q")
    record(toy, started=2000.0, suffix="-new")
    old = walk.trace(toy, "mlflow-evaluate@probe_nih14-old")
    assert node(old, "data/tokens").md5 == before["tokens"].outs["data/tokens"]
    origin = node(old, "data/tokens").origin
    assert origin is not None
    assert origin.run.mlflow_run == "mlflow-tokens-old"
    assert origin.run.params["tokens"]["max_length"] == 64
    assert node(old, "data/inventory/source.parquet").origin is not None
    new = node(walk.trace(toy, METRICS), "data/tokens").origin
    assert new is not None
    assert new.run.mlflow_run == "mlflow-tokens-new"


def test_a_restored_result_maps_to_the_run_that_computed_it(toy: Project) -> None:
    record(toy, suffix="-computed")
    recording.record(toy, Run("tokens", 9000.0, 0.5), Commit(None, None))
    origin = node(walk.trace(toy, "data/tokens"), "data/tokens").origin
    assert origin is not None
    assert origin.run.mlflow_run == "mlflow-tokens-computed"


def test_a_bare_dvc_user_gets_the_chain_too(toy: Project) -> None:
    found = node(walk.trace(toy, METRICS), "data/tokens").origin
    assert found is not None
    assert found.made == "on another machine"
    toy.run_file("tokens").parent.mkdir(parents=True)
    toy.run_file("tokens").write_text(json.dumps({"started": 5.0, "seconds": 2.0, "ids": {}}))
    found = node(walk.trace(toy, METRICS), "data/tokens").origin
    assert found is not None
    assert (found.made, found.started) == ("outside lapvqa run", 5.0)
    other = Run("tokens", 5.0, 2.0, outs={"data/tokens": "f" * 32})
    ledger.append(toy, ledger.RUN, other.payload())  # so the record is not of what is here
    found = node(walk.trace(toy, METRICS), "data/tokens").origin
    assert found is not None
    assert (found.made, found.started) == ("on another machine", None)


def test_a_file_within_a_folder_is_told_by_the_folder(toy: Project) -> None:
    lineage = walk.trace(toy, "data/tokens/tokens-00000.parquet")
    assert lineage.target.artefacts[0][0] == "data/tokens"
    assert "part of data/tokens" in lineage.target.remark


def test_a_file_changed_by_hand_is_said(toy: Project) -> None:
    (toy.root / METRICS).unlink()
    assert "not on this disk" in walk.trace(toy, METRICS).target.remark
    (toy.root / METRICS).write_text("{}")
    assert "differs from what dvc.lock names" in walk.trace(toy, METRICS).target.remark


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("results/probe_nih1/metrics.json", "results/probe_nih14/metrics.json"),
        ("nonsense", "TASK.METRIC"),
        ("probe_nih14.mean_acu", "did you mean mean_auc"),
    ],
)
def test_an_unknown_target_names_the_nearest(toy: Project, asked: str, hint: str) -> None:
    metrics = {"systems": {"trained": {"mean_auc": {"value": 0.7, "low": 0.6, "high": 0.8}}}}
    path = toy.root / METRICS
    path.unlink()
    path.write_text(json.dumps(metrics))
    with pytest.raises(ConfigError) as caught:
        walk.trace(toy, asked)
    assert hint in caught.value.hint


def test_before_the_first_run_it_says_so(toy: Project) -> None:
    toy.dvc_lock.unlink()
    with pytest.raises(ConfigError, match="no stage has run yet"):
        walk.trace(toy, METRICS)


def test_relative_to_where_one_stands(toy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(toy.root / "results" / "probe_nih14")
    assert walk.trace(toy, "metrics.json").target.artefacts[0][0] == METRICS
    monkeypatch.chdir(Path("/"))
    assert walk.trace(toy, METRICS).target.artefacts[0][0] == METRICS
    assert walk.trace(toy, str(toy.root / METRICS)).target.artefacts[0][0] == METRICS


def test_json_is_plain(toy: Project) -> None:
    record(toy)
    value = walk.trace(toy, METRICS).to_json()
    assert json.loads(json.dumps(value)) == value
    assert value["chain"][0]["origin"]["mlflow_run"] == "mlflow-evaluate@probe_nih14"
    known = [(item["path"], item["md5"], item["run"]) for item in value["chain"]]
    edges = [edge for item in value["chain"] for edge in item["inputs"]]
    assert all((edge["path"], edge["md5"], edge["run"]) in known for edge in edges)


def test_the_disk_need_not_hold_the_data(toy: Project) -> None:
    record(toy)
    shutil.rmtree(toy.root / "data")
    lineage = walk.trace(toy, METRICS)
    assert node(lineage, "data/inventory/source.parquet").facts == {}
