"""What Prefect's pages and MLflow's runs show of the stages: results, and what decided them."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable
from dataclasses import astuple
from pathlib import Path
from typing import Any

from lapvqa.evaluation.results import METRICS, Interval, TaskResult, parse, read_result
from lapvqa.evaluation.task_table import EVALUATIONS
from lapvqa.project import Project
from tasks.dvc_repository import StageNode

_MAIN_PARAMS = ("tokens", "pretrain", "evaluate.common")
"""What a person compares whole runs by; each stage's run has all of its own."""
_TRAINING = "training.json"  # as in lapvqa.pretrain.files, which imports torch
_ENDS = ("", ".low", ".high")


def metric_values(root: Path, outs: tuple[str, ...]) -> dict[str, float]:
    """Return the metrics of each metrics.json among a stage's outputs, ``system.metric`` -> value.

    Ends of intervals as ``system.metric.low`` and ``.high``; undefined ones are left out.
    """
    values: dict[str, float] = {}
    for path in outs:
        if posixpath.basename(path) != METRICS:
            continue
        result = parse(json.loads((root / path).read_bytes()))
        for system, metrics in {**result.systems, **result.differences}.items():
            for metric, interval in metrics.items():
                values |= _ends(f"{system}.{metric}", interval)
    return values


def main_params(graph: Iterable[StageNode]) -> dict[str, Any]:
    """Return the parameters that the run of a whole pipeline shows, by dotted key."""
    return {
        key: value for node in graph for key, value in node.params.items() if key in _MAIN_PARAMS
    }


def main_metrics(root: Path, stages: Iterable[StageNode]) -> dict[str, float]:
    """Return what the run of a whole pipeline shows of those ``stages`` that it left up to date.

    ``task.metric`` of each evaluation's primary metric, the ends of its interval, the same
    ``.untrained`` and their ``.difference``; ``pretrain.`` and the numbers that
    training ended with.
    """
    values: dict[str, float] = {}
    for path in (root / out for node in stages for out in node.outs):
        if path.name == _TRAINING:
            counts = json.loads(path.read_bytes())["counts"]
            values |= {f"pretrain.{key}": n for key, n in counts.items() if not isinstance(n, str)}
        elif path.name == METRICS:
            result = parse(json.loads(path.read_bytes()))
            for row in result.headlines():
                name = ".".join(filter(None, (result.task, row.writer, result.primary)))
                values |= _ends(name, row.trained)
                values |= _ends(f"{name}.untrained", row.untrained)
                values |= _ends(f"{name}.difference", row.difference)
    return values


def main_note(root: Path, stages: Iterable[StageNode]) -> str:
    """Return ``main_metrics`` of the evaluations as a table of Markdown, empty without any."""
    rows = []
    for path in (root / out for node in stages for out in node.outs):
        if path.name == METRICS:
            result = parse(json.loads(path.read_bytes()))
            for row in result.headlines():
                task = f"{result.task}, {row.writer}" if row.writer else result.task
                values = (row.trained.shown(), row.untrained.shown(), row.difference.shown("+z.3f"))
                rows.append(f"| {task} | {result.primary} | {' | '.join(values)} {row.verdict} |")
    head = ["| task | metric | trained | untrained | difference |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows]) if rows else ""


def _ends(name: str, interval: Interval) -> dict[str, float]:
    """Return a number and the ends of its interval, without what is undefined."""
    pairs = zip(_ENDS, astuple(interval), strict=True)
    return {f"{name}{end}": value for end, value in pairs if value is not None}


def result_rows(project: Project) -> list[dict[str, str]]:
    """Return one row per task and metric, a column per system: ``0.91 [0.88, 0.94]``."""
    rows = []
    for path in sorted(project.result_dir("x").parent.glob(f"*/{METRICS}")):
        result = read_result(path.parent, path.parent.name)
        if not result.computed:
            rows.append({"task": result.task, "metric": "not computed", "note": result.reason})
            continue
        for metric in result.metrics:
            row = {"task": result.task, "metric": metric}
            row |= {system: result.interval(system, metric).shown() for system in result.systems}
            if metric == result.primary:
                row["note"] = "primary"
            rows.append(row)
    return rows


def evaluated(project: Project) -> list[TaskResult]:
    """Return the results of the tasks that have been evaluated, in the order of the table."""
    return [
        read_result(project.result_dir(task), task)
        for task in EVALUATIONS
        if (project.result_dir(task) / METRICS).exists()
    ]
