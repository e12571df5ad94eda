"""The table and the links that Prefect's pages show, made from results/*/metrics.json."""

from __future__ import annotations

import json
import posixpath
from dataclasses import astuple
from pathlib import Path

from lapvqa.evaluation.results import METRICS, TaskResult, parse, read_result
from lapvqa.evaluation.task_table import EVALUATIONS
from lapvqa.project import Project


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
                for end, value in zip(("", ".low", ".high"), astuple(interval), strict=True):
                    if value is not None:
                        values[f"{system}.{metric}{end}"] = value
    return values


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
