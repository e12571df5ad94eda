"""``lapvqa score``: score anybody's predictions as the pipeline scores its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from flows.commands import terminal
from flows.commands.run_summary import show_doubts
from lapvqa.errors import ConfigError, MissingArtifactError, SchemaError
from lapvqa.evaluation.results import NO_INTERVAL, TaskResult, parse
from lapvqa.params import load_params
from lapvqa.project import Project

if TYPE_CHECKING:
    from lapvqa.evaluation.task import EvaluationTask


def execute(project: Project, *, task: str, predictions: Path, as_json: bool) -> int:
    """Print the metrics of a predictions file, with intervals; write nothing."""
    from lapvqa import storage
    from lapvqa.evaluation import contract, task_table

    params = load_params(project.params).evaluate
    record = task_table.find(task).configured(getattr(params, task), project.root)
    if not predictions.exists():
        raise ConfigError(
            f"expected a file of predictions at {predictions}, found nothing",
            hint=f"the pipeline's own: lapvqa score {task} results/{task}/predictions.parquet",
        )
    try:
        table = storage.read_table(predictions, record.schema, made_by=f"evaluate@{task}")
    except (SchemaError, MissingArtifactError) as error:  # their remedy is for our own file
        raise SchemaError(error.message, hint=_another(record)) from error
    if not table.num_rows and not contract.reason_of(table):
        raise SchemaError(f"{predictions.name}: expected rows, found none", hint=_another(record))
    metrics = contract.metrics_of(record, table, common=params.common)
    if as_json:
        return terminal.print_json(metrics)
    show(parse(metrics), terminal.console())
    return 0


def _another(task: EvaluationTask) -> str:
    return (
        f"give another file: Parquet with the columns {', '.join(task.schema.names)}, of the types "
        f"of results/{task.name}/predictions.parquet"
    )


def show(result: TaskResult, console: Console) -> None:
    """Print the metrics of a task; a narrow terminal gets one table below the other."""
    if not result.computed:
        console.print(f"{result.task}: not computed: {result.reason}", markup=False)
        return
    console.print(
        f"{result.task}: {result.num_samples} samples of {result.num_patients} "
        f"patients; value and {result.protocol['interval_confidence']:.0%} interval",
        markup=False,
    )
    show_doubts([result], console)
    columns = {
        name: {metric: interval.shown() for metric, interval in metrics.items()}
        for name, metrics in {**result.systems, **result.differences}.items()
    }
    for some in _by_width(columns, result.metrics, console.width):
        table = Table()
        table.add_column("metric", no_wrap=True)
        for system in some:
            table.add_column(system, justify="right", no_wrap=True)
        for metric in result.metrics:
            table.add_row(metric, *(columns[system][metric] for system in some))
        console.print(table)
    for system, metrics in result.seeds.items():
        heads = metrics[result.primary]
        each = ", ".join(map(_number, heads.values))
        console.print(
            f"{system}: mean of {len(heads.values)} heads; their {result.primary}: {each} "
            f"(sd {_number(heads.sd)})",
            markup=False,
            soft_wrap=True,
        )
    for line in result.undefined:
        if not line.endswith(NO_INTERVAL):
            console.print(f"undefined: {line}", markup=False, soft_wrap=True)
    bare = [line.partition(": ")[0] for line in result.undefined if line.endswith(NO_INTERVAL)]
    if bare:
        few = result.too_few_patients
        said = f"no interval: {few}" if few else f"{NO_INTERVAL}: {', '.join(bare)}"
        console.print(said, markup=False, soft_wrap=True)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _by_width(
    columns: dict[str, dict[str, str]], metrics: list[str], width: int
) -> Iterator[list[str]]:
    """Yield the columns that fit beside the metrics' names; at least one at a time."""
    left = width - max(map(len, metrics)) - 4
    row: list[str] = []
    taken = 0
    for name, column in columns.items():
        needed = 3 + max(len(name), *(len(column[metric]) for metric in metrics))
        if row and taken + needed > left:
            yield row
            row, taken = [], 0
        row, taken = [*row, name], taken + needed
    yield row
