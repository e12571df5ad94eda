"""The contract of all evaluations: predictions first, metrics from predictions alone.

metrics.json, computed:
    {"task", "status": "ok", "primary", "num_samples", "num_patients",
     "systems": {system: {metric: {"value", "low", "high"}}},
     "differences": {"a-b": {metric: {"value", "low", "high", "p_value", "delong_p" of an AUC}}},
     "seeds": {system: {metric: {"values", "sd"}}} where several heads were trained,
     "undefined": ["metric: reason"], "protocol": {...},
     "contaminated": false, or {"why": [text], "counts": {code: test images}} if training may know
     test images; absent from predictions of which nobody says what made them,
     "metrics": {metric: {"implementation", "version", "tokenisation", ...}}}
or, without the data: {"task", "status": "not computed", "reason"}.
Undefined numbers are null. Numbers carry six decimals, so that the bytes are stable.

sealed.parquet has the rows of patients whom nobody sees (``lapvqa.evaluation.sealed``): no number
is made of it here.

extra/ holds what else a task leaves: head.pt, its trained head in the published form, if it has
one; probe.safetensors, a probe's regressions; examples.npz (detection), the pixels that the report
page shows; files.json lists them.

headline.json is what `dvc metrics` shows, {"primary": of the trained encoder, "gain": above the
untrained one}: the same two columns for every task, where metrics.json would fill hundreds.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lapvqa import storage
from lapvqa.errors import SchemaError
from lapvqa.evaluation import differences
from lapvqa.evaluation.results import (
    CURVES,
    EXTRA,
    HEADLINE,
    METRICS,
    NO_INTERVAL,
    NOT_COMPUTED,
    OK,
    PREDICTIONS,
    Contamination,
    parse,
)
from lapvqa.evaluation.sealed import SEALED, divide
from lapvqa.evaluation.task import CurveTable, EvaluationTask
from lapvqa.job import Counts
from lapvqa.metrics import record, replicates
from lapvqa.metrics.bootstrap import (
    MIN_PATIENTS,
    Array,
    Estimate,
    Measures,
    draw_values,
    interval,
)
from lapvqa.params import BootstrapParams

_PROTOCOL_KEY = b"lapvqa.protocol"
_REASON_KEY = b"lapvqa.not_computed"
_CONTAMINATED_KEY = b"lapvqa.contaminated"
_ALL_SEALED = "all test patients are sealed for the gate: sealed.json"
_DECIMALS = 6


def empty_extra(folder: Path) -> Path:
    """Return <folder>/extra, emptied: for the trained head, and what the report page shows."""
    extra = folder / EXTRA
    shutil.rmtree(extra, ignore_errors=True)
    extra.mkdir(parents=True)
    return extra


def publish(
    task: EvaluationTask,
    predictions: pa.Table,
    *,
    protocol: Mapping[str, Any],
    folder: Path,
    common: BootstrapParams,
    contaminated: Contamination | Literal[False] | None = None,
    sealed: frozenset[str] = frozenset(),
) -> Counts:
    """Write predictions to ``folder``, then score what was written; return the closing counts.

    ``protocol``: strings and numbers that say how the predictions were made (recipe, splits,
    chosen hyperparameters, images that could not be read). It travels inside predictions.parquet,
    and so does what is known of the test images' way into training: ``contaminated``, None if
    nobody has looked. Rows of the patients ``sealed`` are kept apart, and not scored.
    """
    facts = {_PROTOCOL_KEY: json.dumps(protocol, sort_keys=True, allow_nan=False)}
    if contaminated is not None:
        stamp = contaminated.as_json() if contaminated else False
        facts[_CONTAMINATED_KEY] = json.dumps(stamp, sort_keys=True)
    described, apart = divide(predictions.replace_schema_metadata(facts), sealed)
    if apart.num_rows and not described.num_rows:
        described = described.replace_schema_metadata({_REASON_KEY: _ALL_SEALED})
    storage.write_table(folder / SEALED, apart, task.schema)
    storage.write_table(folder / PREDICTIONS, described, task.schema)
    _close_extra(folder)
    return score(task, folder=folder, common=common)


def not_computed(
    task: EvaluationTask, reason: str, *, folder: Path, common: BootstrapParams
) -> Counts:
    """Record that the task has no result here, and why; all its files exist afterwards.

    ``reason`` says what is missing and what to set, without absolute paths.
    """
    empty = task.schema.empty_table().replace_schema_metadata({_REASON_KEY: reason})
    for name in (SEALED, PREDICTIONS):
        storage.write_table(folder / name, empty, task.schema)
    empty_extra(folder)
    _close_extra(folder)
    return score(task, folder=folder, common=common)


def _close_extra(folder: Path) -> None:
    """List what is in extra/, which so is never an empty folder: DVC would not bring it back."""
    listing = folder / EXTRA / "files.json"
    names = sorted(path.name for path in listing.parent.glob("*") if path != listing)
    storage.write_json(listing, names)


def score(task: EvaluationTask, *, folder: Path, common: BootstrapParams) -> Counts:
    """Make metrics.json and curves.csv from the folder's predictions.parquet alone."""
    predictions = storage.read_table(
        folder / PREDICTIONS, task.schema, made_by=f"evaluate@{task.name}"
    )
    metrics = metrics_of(task, predictions, common=common)
    computed = metrics["status"] == OK
    curves = task.curves(predictions) if computed else CurveTable(columns=task.curve_columns)
    storage.write_bytes(folder / CURVES, _csv(curves))
    storage.write_json(folder / METRICS, metrics)
    storage.write_json(folder / HEADLINE, _headline(metrics))
    return _counts(metrics)


def metrics_of(
    task: EvaluationTask, predictions: pa.Table, *, common: BootstrapParams
) -> dict[str, Any]:
    """Return the content of metrics.json; a pure function of its arguments."""
    metadata = predictions.schema.metadata or {}
    if _REASON_KEY in metadata:
        reason = metadata[_REASON_KEY].decode()
        return {"task": task.name, "status": NOT_COMPUTED, "reason": reason}
    if not predictions.num_rows:
        raise SchemaError(
            f"{task.name}: expected predictions, found an empty table without a reason",
            hint=f"run `lapvqa run --stage evaluate@{task.name}` again",
        )
    names = replicates.heads_by_system(pc.unique(predictions["system"]).to_pylist())
    heads = {
        name: replicates.measure_heads(task.measure, predictions, each)
        for name, each in names.items()
    }
    measures = {name: replicates.mean_over_heads(each) for name, each in heads.items()}
    replicates.require_same_samples(measures)
    values = {
        name: draw_values(
            measured.statistic, measured.patients, draws=common.bootstrap_draws, seed=common.seed
        )
        for name, measured in measures.items()
    }
    compared = {
        f"{a}-{b}": _rounded(
            differences.differences(
                measures[a],
                (values[a], values[b]),
                (replicates.rows_of(predictions, a), replicates.rows_of(predictions, b)),
                confidence=common.confidence,
            )
        )
        for a, b in task.compared
        if a in values and b in values
    }
    systems = {
        name: _estimates(measured.names, values[name], common)
        for name, measured in measures.items()
    }
    first = next(iter(measures.values()))
    stamp = metadata.get(_CONTAMINATED_KEY)
    return {
        **({} if stamp is None else {"contaminated": json.loads(stamp)}),
        "task": task.name,
        "status": OK,
        "primary": task.primary,
        "num_samples": len(set(first.samples)),
        "num_patients": len(set(first.patients)),
        "systems": systems,
        "differences": compared,
        "seeds": {
            name: _rounded(replicates.values_over_heads(each))
            for name, each in heads.items()
            if len(each) > 1
        },
        "undefined": _undefined(measures, systems),
        "metrics": record.describe(first.names, num_items=len(first.samples)),
        "protocol": {
            **protocol_of(predictions),
            **_interval_protocol(common),
            "p_value": differences.P_VALUE,
            "delong_p": differences.DELONG,
            "samples_sha256": _digest(sorted(set(first.samples))),
        },
    }


def reason_of(predictions: pa.Table) -> str:
    """Return why there are no predictions; empty if there are."""
    reason: bytes = (predictions.schema.metadata or {}).get(_REASON_KEY, b"")
    return reason.decode()


def contamination_of(predictions: pa.Table) -> Contamination | Literal[False] | None:
    """Return the stamp that travels with predictions; None if nobody has looked."""
    stamp = (predictions.schema.metadata or {}).get(_CONTAMINATED_KEY)
    known = None if stamp is None else json.loads(stamp)
    return Contamination(tuple(known["why"]), known["counts"]) if known else known


def protocol_of(predictions: pa.Table) -> dict[str, Any]:
    """Return the protocol that travels with predictions; empty for those that bring none."""
    metadata = predictions.schema.metadata or {}
    protocol: dict[str, Any] = json.loads(metadata.get(_PROTOCOL_KEY, b"{}"))
    return protocol


def _estimates(
    names: tuple[str, ...], values: Array, common: BootstrapParams
) -> dict[str, dict[str, float | None]]:
    columns = values.reshape(len(values), -1).T
    intervals = [interval(column, confidence=common.confidence) for column in columns]
    return {name: _as_json(estimate) for name, estimate in zip(names, intervals, strict=True)}


def _as_json(estimate: Estimate) -> dict[str, float | None]:
    return {key: _rounded(value) for key, value in estimate._asdict().items()}


def _undefined(
    measures: Mapping[str, Measures], systems: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> list[str]:
    lines = set()
    for system, measured in measures.items():
        for name in measured.names:
            estimate = systems[system][name]
            if estimate["value"] is None:
                lines.add(f"{name}: {measured.undefined.get(name, 'no value for these samples')}")
            elif estimate["low"] is None:
                lines.add(f"{name}: {NO_INTERVAL}")
    return sorted(lines)


def _interval_protocol(common: BootstrapParams) -> dict[str, Any]:
    return {
        "interval": "percentile bootstrap, patients resampled, systems paired on the same draws",
        "interval_confidence": common.confidence,
        "interval_draws": common.bootstrap_draws,
        "interval_seed": common.seed,
        "interval_undefined_draws": "left out; no interval when more than 5 % are undefined",
        "interval_min_patients": MIN_PATIENTS,
    }


def _rounded(value: Any) -> Any:
    """Round floats to six decimals, everywhere inside; -0.0 becomes 0.0."""
    if isinstance(value, Mapping):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float | np.floating):
        return round(float(value), _DECIMALS) + 0.0
    return value


def _digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _csv(table: CurveTable) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(["" if cell is None else _rounded(cell) for cell in row] for row in table.rows)
    return text.getvalue().encode()


def _headline(metrics: Mapping[str, Any]) -> dict[str, Any]:
    if metrics["status"] != OK:
        return {"status": metrics["status"]}
    primary, systems = metrics["primary"], metrics["systems"]
    row = next(parse(metrics).headlines(), None)
    if row is None:  # of neither system: the first one's
        return {"primary": next(iter(systems.values()))[primary]["value"]}
    return {"primary": row.trained.value, "gain": row.difference.value}


def _counts(metrics: Mapping[str, Any]) -> Counts:
    if metrics["status"] != OK:
        return {"status": metrics["status"], "reason": metrics["reason"]}
    primary = metrics["primary"]
    values = {
        f"{primary}_{system}": numbers[primary]["value"]
        for system, numbers in metrics["systems"].items()
        if numbers[primary]["value"] is not None
    }
    return {
        "status": OK,
        "num_samples": metrics["num_samples"],
        "num_patients": metrics["num_patients"],
        **values,
    }
