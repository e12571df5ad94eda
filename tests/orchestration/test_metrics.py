"""What MLflow is told of an evaluation, by the project's own graph."""

from __future__ import annotations

from pathlib import Path

from lapvqa import storage
from lapvqa.evaluation.task_table import EVALUATIONS
from tasks.dvc_repository import load_graph
from tasks.results import metric_values


def test_every_evaluation_of_the_graph_brings_its_metrics(repository: Path, tmp_path: Path) -> None:
    outs = {node.name: node.outs for node in load_graph(repository)}
    interval = {"value": 0.9, "low": 0.8, "high": None}
    for task in EVALUATIONS:
        systems = {"trained": {"auc": interval}}
        content = {"task": task, "status": "ok", "primary": "auc", "systems": systems}
        storage.write_json(tmp_path / "results" / task / "metrics.json", content)
        told = metric_values(tmp_path, outs[f"evaluate@{task}"])
        assert told == {"trained.auc": 0.9, "trained.auc.low": 0.8}, task
    assert metric_values(tmp_path, outs["export"]) == {}


def test_what_was_not_computed_has_none(tmp_path: Path) -> None:
    content = {"task": "ad", "status": "not computed", "reason": "no data"}
    storage.write_json(tmp_path / "metrics.json", content)
    assert metric_values(tmp_path, ("metrics.json",)) == {}
