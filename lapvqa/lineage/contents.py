"""What a file says that a model card tells: counts of tables, and what an evaluation was about.

Kept in the ledger beside the file's digest, so that a card needs the ledger alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lapvqa import storage

if TYPE_CHECKING:
    import pyarrow as pa

UNKNOWN = "unknown"
_EVALUATION = (
    "task", "status", "reason", "primary", "num_samples", "num_patients",
    "contaminated", "slices",
)  # fmt: skip


def facts(path: Path) -> dict[str, Any]:
    """Return what is told of a file by its name; nothing for most, or if it cannot be read."""
    reader = _READERS.get(path.name)
    if reader is None:
        return {}
    try:
        return reader(path)
    except (OSError, ValueError, KeyError):
        return {}


def _of_images(path: Path) -> dict[str, Any]:
    table = storage.read_columns(path, ["split", "view"])
    splits = table["split"].to_pylist()
    return {"counts": {"split": _counted(splits), "view": _by_split(table["view"], splits)}}


def _of_demographics(path: Path) -> dict[str, Any]:
    table = storage.read_columns(path, ["split", "sex", "age_band"])
    splits = table["split"].to_pylist()
    return {"counts": {name: _by_split(table[name], splits) for name in ("sex", "age_band")}}


def _by_split(column: pa.ChunkedArray, splits: list[str]) -> dict[str, dict[str, int]]:
    """Return how often each value stands in each split."""
    values = [value or UNKNOWN for value in column.to_pylist()]
    return {
        value: _counted(split for split, one in zip(splits, values, strict=True) if one == value)
        for value in sorted(set(values))
    }


def _of_studies(path: Path) -> dict[str, Any]:
    table = storage.read_columns(path, ["split", "patient_key", "report_sha256"])
    splits, patients, reports = (column.to_pylist() for column in table.columns)
    return {
        "counts": {
            "split": _counted(splits),
            "patients": _counted(split for split, _ in set(zip(splits, patients, strict=True))),
            "with_report": _counted(
                split for split, report in zip(splits, reports, strict=True) if report is not None
            ),
        }
    }


def _of_rejects(path: Path) -> dict[str, Any]:
    table = storage.read_columns(path, ["kind", "reason"])
    kinds, reasons = (column.to_pylist() for column in table.columns)
    return {
        "counts": {
            kind: _counted(
                reason for one, reason in zip(kinds, reasons, strict=True) if one == kind
            )
            for kind in sorted(set(kinds))
        }
    }


def _of_metrics(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_bytes())
    told = {key: content[key] for key in _EVALUATION if content.get(key) is not None}
    samples = content.get("protocol", {}).get("samples_sha256")
    return {"evaluation": told | ({"samples_sha256": samples} if samples else {})}


def _counted(values: Any) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


_READERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "images.parquet": _of_images,
    "studies.parquet": _of_studies,
    "demographics.parquet": _of_demographics,
    "rejects.parquet": _of_rejects,
    "token_rejects.parquet": _of_rejects,
    "metrics.json": _of_metrics,
}
