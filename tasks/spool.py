"""Records of finished stages on disk until MLflow has them: nothing is lost while it is down.

.lapvqa/spool/<run>/pipeline.json and .lapvqa/spool/<run>/<stage>/{record.json,lines.jsonl}.
Shipping is idempotent: runs are found by their tags, and a metric that is logged again with the
same time, step and value adds nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lapvqa import storage

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

RUNNING, FINISHED, FAILED, KILLED = "RUNNING", "FINISHED", "FAILED", "KILLED"
_BATCH_METRICS, _BATCH_OTHERS = 1000, 100  # MLflow's limits for one log_batch
_TEXT_LIMIT = 4000


@dataclass
class RunRecord:
    """One run of a stage (or, with an empty ``stage``, of the pipeline) as MLflow shall know it."""

    run: str
    """Our own id of the pipeline run; a tag of the MLflow runs."""
    stage: str
    started: float
    status: str = RUNNING
    ended: float | None = None
    params: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    """Path -> DVC's md5, which covers every byte of the file or folder."""
    metrics: dict[str, float] = field(default_factory=dict)

    def folder(self, spool: Path) -> Path:
        """Return where it waits."""
        return spool / self.run / (self.stage.replace("@", "-") or "_pipeline")


def keep(record: RunRecord, spool: Path, *, lines: Path | None = None) -> None:
    """Write a record, and the stage's JSON lines beside it if they are of the same run."""
    folder = record.folder(spool)
    if lines is not None and began_after(lines, record.started):
        storage.write_bytes(folder / "lines.jsonl", lines.read_bytes())
    storage.write_json(folder / "record.json", asdict(record))


def drop(record: RunRecord, spool: Path) -> None:
    """Forget a record that MLflow has; the run's folder goes with its last record."""
    folder = record.folder(spool)
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent.exists() and not any(folder.parent.iterdir()):
        folder.parent.rmdir()


def waiting(spool: Path) -> list[RunRecord]:
    """Return the records that wait, each pipeline before its stages."""
    found = [RunRecord(**json.loads(p.read_bytes())) for p in spool.glob("*/*/record.json")]
    return sorted(found, key=lambda record: (record.run, bool(record.stage), record.started))


def began_after(lines: Path, started: float) -> bool:
    """Tell whether a stage's JSON lines belong to a run that began at ``started`` or later."""
    if not lines.exists():
        return False
    with lines.open("rb") as handle:
        first = handle.readline()
    return first.endswith(b"\n") and float(json.loads(first)["t"]) >= started - 0.001


def find_run(client: MlflowClient, experiment: str, record: RunRecord) -> str | None:
    """Return the id of the MLflow run of ``record``, if it is there."""
    wanted = f"tags.`lapvqa.run` = '{record.run}' and tags.`lapvqa.stage` = '{record.stage}'"
    found = client.search_runs([experiment], wanted, max_results=1)
    return str(found[0].info.run_id) if found else None


def open_run(client: MlflowClient, experiment: str, record: RunRecord, *, parent: str) -> str:
    """Create the MLflow run of ``record`` and return its id; ``parent`` empty for a pipeline."""
    tags = {
        **record.tags,
        "lapvqa.run": record.run,
        "lapvqa.stage": record.stage,
        "mlflow.source.name": "lapvqa",
    }
    if parent:
        tags["mlflow.parentRunId"] = parent
    name = record.stage or f"pipeline {record.run[:8]}"
    created = client.create_run(
        experiment, start_time=_milliseconds(record.started), run_name=name, tags=tags
    )
    return str(created.info.run_id)


def ship(
    client: MlflowClient, run_id: str, record: RunRecord, *, spool: Path, offset: int = 0
) -> None:
    """Bring all of ``record`` into its MLflow run; JSON lines from byte ``offset`` on."""
    lines = record.folder(spool) / "lines.jsonl"
    log_params(client, run_id, record.params)
    tags = dict(record.tags)
    if lines.exists():
        entries = [json.loads(line) for line in lines.read_bytes().splitlines()]
        tags |= line_tags(entries)
        log_points(client, run_id, points(read_entries(lines, offset)[0]))
        client.log_artifact(run_id, str(lines), "records")
    log_tags(client, run_id, tags)
    log_inputs(client, run_id, record.inputs)
    if record.metrics and record.ended:
        log_points(client, run_id, _metrics(record.metrics, record.ended, 0))
    if record.status != RUNNING:
        ended = _milliseconds(record.ended or record.started)
        client.set_terminated(run_id, status=record.status, end_time=ended)


def read_entries(lines: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """Return the whole JSON lines from byte ``offset`` on, and the offset behind them."""
    with lines.open("rb") as handle:
        handle.seek(offset)
        data = handle.read()
    whole = data[: data.rfind(b"\n") + 1]
    return [json.loads(line) for line in whole.splitlines()], offset + len(whole)


def points(entries: list[dict[str, Any]]) -> Iterator[Metric]:
    """Return the metrics that a stage's JSON lines hold, with the times they were written."""
    for entry in entries:
        if entry["kind"] == "metrics":
            yield from _metrics(entry["values"], entry["t"], entry["step"])
        elif entry["kind"] == "progress":
            values = {"progress.done": entry["done"], "progress.rate": entry["rate"]}
            yield from _metrics(values, entry["t"], entry["done"])
        elif entry["kind"] == "summary":
            numbers = {f"summary.{k}": v for k, v in entry["values"].items() if _is_number(v)}
            yield from _metrics(numbers, entry["t"], 0)


def line_tags(entries: list[dict[str, Any]]) -> dict[str, str]:
    """Return the tags that a stage's JSON lines hold: facts, and counts that are text."""
    tags: dict[str, str] = {}
    for entry in entries:
        if entry["kind"] == "facts":
            tags |= {f"fact.{key}": _text(value) for key, value in entry["values"].items()}
        elif entry["kind"] == "summary":
            texts = {k: v for k, v in entry["values"].items() if not _is_number(v)}
            tags |= {f"summary.{key}": _text(value) for key, value in texts.items()}
    return tags


def log_points(client: MlflowClient, run_id: str, metrics: Iterator[Metric]) -> None:
    """Log metrics in MLflow's batches."""
    batch = list(metrics)
    for start in range(0, len(batch), _BATCH_METRICS):
        client.log_batch(run_id, metrics=batch[start : start + _BATCH_METRICS])


def log_params(client: MlflowClient, run_id: str, params: dict[str, Any]) -> None:
    """Log parameters, nested ones by dotted name."""
    from mlflow.entities import Param

    entities = [Param(key, _text(value)) for key, value in flatten(params).items()]
    for start in range(0, len(entities), _BATCH_OTHERS):
        client.log_batch(run_id, params=entities[start : start + _BATCH_OTHERS])


def log_tags(client: MlflowClient, run_id: str, tags: dict[str, str]) -> None:
    """Set tags in MLflow's batches."""
    from mlflow.entities import RunTag

    entities = [RunTag(key, value) for key, value in tags.items()]
    for start in range(0, len(entities), _BATCH_OTHERS):
        client.log_batch(run_id, tags=entities[start : start + _BATCH_OTHERS])


def log_inputs(client: MlflowClient, run_id: str, inputs: dict[str, str]) -> None:
    """Log what was read as dataset inputs, digest = DVC's md5 (32 hex, ``.dir`` for a folder)."""
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import Dataset, DatasetInput, InputTag

    datasets = []
    for path, md5 in inputs.items():
        source = CodeDatasetSource(tags={"dvc.path": path, "dvc.md5": md5})
        dataset = MetaDataset(source=source, name=path, digest=md5)
        tags = [InputTag("mlflow.data.context", "input")]
        datasets.append(DatasetInput(Dataset.from_dictionary(dataset.to_dict()), tags))
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
            yield Metric(key, float(value), _milliseconds(time_s), int(step))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text[:_TEXT_LIMIT]


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
