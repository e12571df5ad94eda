"""The table and the links that Prefect's pages show, made from results/*/metrics.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lapvqa.evaluation.task_table import EVALUATIONS
from lapvqa.project import Project

_PAIRS = {"": ("trained", "untrained"), ", head": ("head_trained", "head_untrained")}
"""Systems that differ in nothing but whether the encoder was trained."""


def metric_values(root: Path, paths: tuple[str, ...]) -> dict[str, float]:
    """Return the metrics of metrics.json files as ``system.metric`` -> value.

    Ends of intervals as ``system.metric.low`` and ``.high``; undefined ones are left out.
    """
    values: dict[str, float] = {}
    for path in paths:
        document = _read(root / path)
        for system, metrics in _systems(document).items():
            for metric, estimate in metrics.items():
                named = {"": estimate["value"], ".low": estimate["low"], ".high": estimate["high"]}
                for end, value in named.items():
                    if value is not None:
                        values[f"{system}.{metric}{end}"] = value
    return values


def result_rows(project: Project) -> list[dict[str, str]]:
    """Return one row per task and metric, a column per system: ``0.91 [0.88, 0.94]``."""
    rows = []
    for path in sorted(project.result_dir("x").parent.glob("*/metrics.json")):
        document = _read(path)
        task = str(document.get("task", path.parent.name))
        if document.get("status") != "ok":
            rows.append(
                {"task": task, "metric": "not computed", "note": document.get("reason", "")}
            )
            continue
        systems = document["systems"]
        for metric in {name: None for metrics in systems.values() for name in metrics}:
            row = {"task": task, "metric": metric}
            for system, metrics in systems.items():
                row[system] = shown(metrics.get(metric))
            if metric == document.get("primary"):
                row["note"] = "primary"
            rows.append(row)
    return rows


@dataclass(frozen=True)
class Headline:
    """A task's primary metric before and after pretraining, as text; ``not_computed``: why."""

    task: str
    metric: str = ""
    trained: str = ""
    untrained: str = ""
    difference: str = ""
    not_computed: str = ""


def headlines(project: Project) -> list[Headline]:
    """Return a row per task that has been evaluated, two for reports: decoder, then head."""
    rows = []
    for task in EVALUATIONS:
        path = project.result_dir(task) / "metrics.json"
        if path.exists():
            rows += _headlines(task, _read(path))
    return rows


def _headlines(task: str, document: dict[str, Any]) -> list[Headline]:
    if document.get("status") != "ok":
        return [Headline(task, not_computed=document.get("reason", ""))]
    systems, primary = document["systems"], document["primary"]
    differences = document.get("differences", {})
    return [
        Headline(
            f"{task}{writer}",
            primary,
            *(shown(systems.get(name, {}).get(primary)) for name in pair),
            shown_difference(differences.get("-".join(pair), {}).get(primary)),
        )
        for writer, pair in _PAIRS.items()
        if pair[0] in systems
    ]


def most_common_report(project: Project) -> str:
    """Return what answering every study with the most common report reaches; "" if unknown."""
    path = project.result_dir("rrg") / "metrics.json"
    document = _read(path) if path.exists() else {}
    found = document.get("systems", {}).get("most_common", {}).get(document.get("primary"))
    return f"{document['primary']} {shown(found)}" if found else ""


def _systems(document: dict[str, Any]) -> dict[str, Any]:
    """Return systems, and differences between them, of a computed metrics.json."""
    return {**document.get("systems", {}), **document.get("differences", {})}


def shown(estimate: dict[str, float | None] | None) -> str:
    """Return an estimate as text: ``0.910 [0.880, 0.940]``."""
    return _shown(estimate, ".3f")


def shown_difference(estimate: dict[str, float | None] | None) -> str:
    """Return a difference as text, signed: ``+0.120 [+0.080, +0.160]``."""
    return _shown(estimate, "+.3f")


def _shown(estimate: dict[str, float | None] | None, form: str) -> str:
    if estimate is None or estimate["value"] is None:
        return "undefined"
    value = format(estimate["value"], form)
    if estimate["low"] is None or estimate["high"] is None:
        return value
    return f"{value} [{format(estimate['low'], form)}, {format(estimate['high'], form)}]"


def _read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_bytes())
    return document
