"""What MLflow is told of an evaluation, by the project's own graph."""

from __future__ import annotations

from pathlib import Path

from lapvqa import storage
from lapvqa.evaluation.task_table import EVALUATIONS
from tasks.dvc_repository import load_graph
from tasks.mlflow_records.shipping import flatten
from tasks.results import main_metrics, main_note, main_params, metric_values


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


def test_the_pipelines_run_shows_every_primary_metric_of_the_graph_and_what_decided_it(
    repository: Path, tmp_path: Path
) -> None:
    graph = [node for node in load_graph(repository) if node.name != "pretrain"]
    systems = {"trained": {"auc": {"value": 0.9, "low": 0.8, "high": 1.0}, "f1": {"value": 0.1}}}
    for task in EVALUATIONS:
        content = {"task": task, "status": "ok", "primary": "auc", "systems": systems}
        storage.write_json(tmp_path / "results" / task / "metrics.json", content)
    shown = main_metrics(tmp_path, graph)
    assert shown == {
        f"{task}.auc{end}": value
        for task in EVALUATIONS
        for end, value in (("", 0.9), (".low", 0.8), (".high", 1.0))
    }
    note = main_note(tmp_path, graph)
    assert note.count("| auc | 0.900 [0.800, 1.000] |") == len(EVALUATIONS)
    assert main_note(tmp_path, []) == ""
    params = flatten(main_params(load_graph(repository)))
    assert {"pretrain.lr", "pretrain.seed", "pretrain.model.depth", "tokens.max_length"} <= set(
        params
    )
    assert not any(key.startswith(("report.", "evaluate.vqa")) for key in params)


def test_what_was_not_computed_has_none(tmp_path: Path) -> None:
    content = {"task": "ad", "status": "not computed", "reason": "no data"}
    storage.write_json(tmp_path / "metrics.json", content)
    assert metric_values(tmp_path, ("metrics.json",)) == {}
