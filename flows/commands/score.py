"""``lapvqa score``: score anybody's predictions as the pipeline scores its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.table import Table

from flows.commands import screen
from lapvqa.layout import Layout
from lapvqa.params import load_params
from tasks.results import shown


def execute(layout: Layout, *, task: str, predictions: Path, as_json: bool) -> int:
    """Print the metrics of a predictions file, with intervals; write nothing."""
    from lapvqa import storage
    from lapvqa.evaluation import contract, listing

    evaluation = listing.find(task)
    table = storage.read_table(
        predictions, evaluation.schema, made_by=f"evaluate@{task} (or give another file)"
    )
    common = load_params(layout.params).evaluate.common
    metrics = contract.metrics_of(evaluation, table, common=common)
    if as_json:
        # Plain, whatever the width of the terminal.
        screen.console().print_json(json.dumps(metrics, sort_keys=True), indent=2)
        return 0
    _show(metrics)
    return 0


def _show(metrics: dict[str, Any]) -> None:
    console = screen.console()
    if "systems" not in metrics:
        console.print(f"{metrics['task']}: not computed: {metrics['reason']}", markup=False)
        return
    console.print(
        f"{metrics['task']}: {metrics['num_samples']} samples of {metrics['num_patients']} "
        f"patients; value and {metrics['protocol']['interval_confidence']:.0%} interval",
        markup=False,
    )
    columns = {**metrics["systems"], **metrics["differences"]}
    table = Table()
    table.add_column("metric", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for metric in next(iter(metrics["systems"].values())):
        table.add_row(metric, *(shown(column[metric]) for column in columns.values()))
    console.print(table)
    for line in metrics["undefined"]:
        console.print(f"undefined: {line}", markup=False, soft_wrap=True)
