"""Records on their way from the spool into MLflow.

Idempotent: runs are found by their tags, and a metric that is logged again with the same time,
step and value adds nothing. What has arrived is marked batch by batch, so that a next attempt,
in this process or another, goes on from there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks import mlflow_private
from tasks.mlflow_records import spool
from tasks.mlflow_records.spool import RunRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    from tasks.mlflow_records.connection import Store

BATCH_METRICS, _BATCH_OTHERS = 1000, 100  # MLflow's limits for one log_batch
_TEXT_LIMIT, _NAME_LIMIT = 4000, 250
_NOT_IN_NAMES = re.compile(r"[^/\w.\- :]")
_PARENT = "mlflow.parentRunId"


def run_of(store: Store, record: RunRecord, pipeline: RunRecord | None = None) -> str:
    """Return the id of the MLflow run of ``record``; it is opened if it is not there.

    A stage's run is the child of its pipeline's. ``pipeline`` None: its record has been shipped
    before; if its run is not there (deleted, another store) a bare one stands in for it.
    """
    known = find_run(store, record)
    if known or not record.stage:
        return known or _open_run(store, record)
    if pipeline is not None:
        return _open_run(store, record, parent=run_of(store, pipeline))
    bare = RunRecord(record.run, "", record.started, spool.FINISHED, record.ended)
    parent = find_run(store, bare)
    if parent is None:
        parent = _open_run(store, bare)
        _terminate(store.client, parent, bare)
    return _open_run(store, record, parent=parent)


def find_run(store: Store, record: RunRecord) -> str | None:
    """Return the id of the MLflow run of ``record``, if it is there and not deleted."""
    wanted = f"tags.`lapvqa.run` = '{record.run}' and tags.`lapvqa.stage` = '{record.stage}'"
    runs = store.client.search_runs([store.experiment], wanted, max_results=1)
    return str(runs[0].info.run_id) if runs else None


def delete_run(store: Store, record: RunRecord) -> None:
    """Delete the MLflow run of ``record``, if it is there."""
    known = find_run(store, record)
    if known:
        store.client.delete_run(known)


def _open_run(store: Store, record: RunRecord, *, parent: str = "") -> str:
    tags = {
        **_named(record.tags),
        "lapvqa.run": record.run,
        "lapvqa.stage": record.stage,
        "mlflow.source.name": "lapvqa",
    }
    if parent:
        tags[_PARENT] = parent
    name = record.stage or record.tags.get(spool.FLOW_NAME) or f"pipeline {record.run[:8]}"
    created = store.client.create_run(
        store.experiment, start_time=_milliseconds(record.started), run_name=name, tags=tags
    )
    return str(created.info.run_id)


def ship(
    client: MlflowClient, run_id: str, record: RunRecord, folder: Path, check: Callable[[], None]
) -> None:
    """Bring all of ``record`` and its ``folder`` into its MLflow run.

    ``check`` is called before each batch of metrics; what it raises ends the shipping.
    """
    lines = folder / spool.LINES
    log_params(client, run_id, record.params)
    tags = dict(record.tags)
    if lines.exists():
        tags |= line_tags(lines)
        ship_points(client, run_id, lines, folder, check, name=spool.LINES)
        client.log_artifact(run_id, str(lines), "records")
    if (folder / spool.LOAD).exists():
        ship_points(client, run_id, folder / spool.LOAD, folder, check, name=spool.LOAD)
    if (folder / spool.PICTURES).exists():
        client.log_artifacts(run_id, str(folder / spool.PICTURES), spool.PICTURES)
    log_tags(client, run_id, tags)
    log_inputs(client, run_id, record.inputs)
    if record.metrics and record.ended:
        log_points(client, run_id, list(_metrics(record.metrics, record.ended, 0)))
    if record.status != spool.RUNNING:
        _terminate(client, run_id, record)


def ship_points(
    client: MlflowClient, run_id: str, lines: Path, folder: Path, check: Callable[[], None],
    *, name: str,
) -> None:  # fmt: skip
    """Bring the metrics of JSON lines that are not shipped yet; mark them in ``folder``."""
    mark = spool.Mark(folder, run_id)
    for metrics, offset in batches(lines, mark.get(lines, name=name)):
        check()
        log_points(client, run_id, metrics)
        mark.set(lines, offset, name=name)


def batches(lines: Path, offset: int) -> Iterator[tuple[list[Metric], int]]:
    """Yield the metrics of the whole lines from byte ``offset`` on and the offset behind them.

    A batch is what one request may carry, or one line if that has more.
    """
    batch: list[Metric] = []
    with lines.open("rb") as handle:
        handle.seek(offset)
        for line in handle:
            if not line.endswith(b"\n"):
                break
            metrics = list(points(_entry(line)))
            if batch and len(batch) + len(metrics) > BATCH_METRICS:
                yield batch, offset
                batch = []
            batch += metrics
            offset += len(line)
    if batch:
        yield batch, offset


def _entry(line: bytes) -> dict[str, Any]:
    """Return one JSON line; one that a full disk or a power cut has damaged is of kind damaged."""
    try:
        entry: dict[str, Any] = json.loads(line)
    except ValueError:
        return {"kind": "damaged"}
    return entry


def points(entry: dict[str, Any]) -> Iterator[Metric]:
    """Return the metrics that one of a stage's JSON lines holds, with the time it was written."""
    if entry["kind"] == "metrics":
        yield from _metrics(entry["values"], entry["t"], entry["step"])
    elif entry["kind"] == "progress":
        values = {"progress.done": entry["done"], "progress.rate": entry["rate"]}
        yield from _metrics(values, entry["t"], entry["done"])
    elif entry["kind"] == "summary":
        numbers = {f"summary.{k}": v for k, v in entry["values"].items() if _is_number(v)}
        yield from _metrics(numbers, entry["t"], 0)


def line_tags(lines: Path) -> dict[str, str]:
    """Return the tags that a stage's JSON lines hold: facts, counts that are text, damage."""
    tags: dict[str, str] = {}
    damaged = 0
    with lines.open("rb") as handle:
        for entry in map(_entry, handle):
            if entry["kind"] in ("facts", "resumed"):
                tags |= {f"fact.{key}": _text(value) for key, value in entry["values"].items()}
            elif entry["kind"] == "summary":
                texts = {k: v for k, v in entry["values"].items() if not _is_number(v)}
                tags |= {f"summary.{key}": _text(value) for key, value in texts.items()}
            damaged += entry["kind"] == "damaged"
    return tags | ({"records.damaged_lines": str(damaged)} if damaged else {})


def log_points(client: MlflowClient, run_id: str, metrics: list[Metric]) -> None:
    """Log metrics in MLflow's batches; they are there when this returns."""
    for start in range(0, len(metrics), BATCH_METRICS):
        batch = metrics[start : start + BATCH_METRICS]
        # Said aloud: with MLFLOW_ENABLE_ASYNC_LOGGING they would be lost without an error.
        client.log_batch(run_id, metrics=batch, synchronous=True)


def log_params(client: MlflowClient, run_id: str, params: dict[str, Any]) -> None:
    """Log parameters, nested ones by dotted name."""
    from mlflow.entities import Param

    entities = [Param(key, _text(value)) for key, value in _named(flatten(params)).items()]
    for start in range(0, len(entities), _BATCH_OTHERS):
        client.log_batch(run_id, params=entities[start : start + _BATCH_OTHERS], synchronous=True)


def log_tags(client: MlflowClient, run_id: str, tags: dict[str, str]) -> None:
    """Set tags in MLflow's batches."""
    from mlflow.entities import RunTag

    entities = [RunTag(key, value) for key, value in _named(tags).items()]
    for start in range(0, len(entities), _BATCH_OTHERS):
        client.log_batch(run_id, tags=entities[start : start + _BATCH_OTHERS], synchronous=True)


def log_inputs(client: MlflowClient, run_id: str, inputs: dict[str, str]) -> None:
    """Log what was read as dataset inputs, digest = DVC's md5 (32 hex, ``.dir`` for a folder)."""
    from mlflow.entities import DatasetInput, InputTag

    datasets = []
    for path, md5 in inputs.items():
        tags = [InputTag("mlflow.data.context", "input")]
        datasets.append(DatasetInput(mlflow_private.dataset(path, md5), tags))
    if datasets:
        client.log_inputs(run_id, datasets)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _metrics(values: dict[str, Any], time_s: float, step: int) -> Iterator[Metric]:
    from mlflow.entities import Metric

    for key, value in values.items():
        if _is_number(value):
            yield Metric(_name(key), float(value), _milliseconds(time_s), int(step))


def _named(values: dict[str, Any]) -> dict[str, Any]:
    return {_name(key): value for key, value in values.items()}


def _name(key: str) -> str:
    """Return ``key`` in the letters that MLflow allows: one that it refuses stops all others."""
    return _NOT_IN_NAMES.sub("_", key)[:_NAME_LIMIT]


def _terminate(client: MlflowClient, run_id: str, record: RunRecord) -> None:
    ended = _milliseconds(record.ended or record.started)
    client.set_terminated(run_id, status=record.status, end_time=ended)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text[:_TEXT_LIMIT]


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
