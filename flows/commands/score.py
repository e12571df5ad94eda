"""``lapvqa score``: score anybody's predictions as the pipeline scores its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.commands import terminal
from lapvqa.params import load_params
from lapvqa.project import Project
from tasks.results import shown


def execute(project: Project, *, task: str, predictions: Path, as_json: bool) -> int:
    """Print the metrics of a predictions file, with intervals; write nothing."""
    from lapvqa import storage
    from lapvqa.evaluation import contract, task_table

    params = load_params(project.params).evaluate
    evaluation = task_table.configured(task, params, project)
    table = storage.read_table(
        predictions, evaluation.schema, made_by=f"evaluate@{task} (or give another file)"
    )
    metrics = contract.metrics_of(evaluation, table, common=params.common)
    if as_json:
        # Plain, whatever the width of the terminal.
        terminal.console().print_json(json.dumps(metrics, sort_keys=True), indent=2)
        return 0
    show(metrics, terminal.console())
    return 0


def show(metrics: dict[str, Any], console: Console) -> None:
    """Print the content of a metrics.json; a narrow terminal gets one table below the other."""
    if "systems" not in metrics:
        console.print(f"{metrics['task']}: not computed: {metrics['reason']}", markup=False)
        return
    console.print(
        f"{metrics['task']}: {metrics['num_samples']} samples of {metrics['num_patients']} "
        f"patients; value and {metrics['protocol']['interval_confidence']:.0%} interval",
        markup=False,
    )
    columns = {**metrics["systems"], **metrics["differences"]}
    names = list(next(iter(metrics["systems"].values())))
    for some in _by_width(columns, names, console.width):
        table = Table()
        table.add_column("metric", no_wrap=True)
        for system in some:
            table.add_column(system, justify="right", no_wrap=True)
        for metric in names:
            table.add_row(metric, *(shown(columns[system][metric]) for system in some))
        console.print(table)
    primary = metrics["primary"]
    for system, found in metrics["seeds"].items():
        each = ", ".join(map(_number, found[primary]["values"]))
        console.print(
            f"{system}: mean of {len(found[primary]['values'])} heads; their {primary}: {each} "
            f"(sd {_number(found[primary]['sd'])})",
            markup=False,
            soft_wrap=True,
        )
    for line in metrics["undefined"]:
        console.print(f"undefined: {line}", markup=False, soft_wrap=True)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _by_width(columns: dict[str, Any], metrics: list[str], width: int) -> Iterator[list[str]]:
    """Yield the columns that fit beside the metrics' names; at least one at a time."""
    left = width - max(map(len, metrics)) - 4
    row: list[str] = []
    taken = 0
    for name, column in columns.items():
        needed = 3 + max(len(name), *(len(shown(column[metric])) for metric in metrics))
        if row and taken + needed > left:
            yield row
            row, taken = [], 0
        row, taken = [*row, name], taken + needed
    yield row
