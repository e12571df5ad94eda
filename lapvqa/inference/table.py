"""Features as a table: a row per film, written while the next films are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lapvqa import __version__, storage
from lapvqa.inference.encoder import Encoder
from lapvqa.inference.films import Film, Source

MARK = b"lapvqa embed"
"""Which program wrote a file: stands in its metadata."""

_GROUP = 256
"""Rows that are written at a time."""

COLUMNS = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("feature", pa.list_(pa.float32())),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
    ]
)
"""``feature`` is null where ``reason``, a code of ``lapvqa.dicom.reasons``, says why."""


def write(
    encoder: Encoder,
    sources: Source | Iterable[Source],
    path: Path,
    *,
    each: Callable[[Film], None] = lambda film: None,
) -> None:
    """Write the features of films to ``path``, whole or not at all; ``each`` is told of each film.

    The file's metadata name the model by the sha256 of its weights, as the evaluations do.
    """
    facts = {
        b"made_by": MARK,
        b"lapvqa": __version__.encode(),
        b"encoder_sha256": encoder.digest.encode(),
        b"encoder": encoder.about.encode(),
        b"feature": b"mean of the tokens",
    }
    schema = COLUMNS.with_metadata(facts)
    with storage.atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        rows: list[dict[str, object]] = []
        for film, feature in encoder.stream(sources):
            rows.append(
                {
                    "path": film.name,
                    "sha256": film.sha256,
                    "feature": feature,
                    "reason": film.reason.value if film.reason else None,
                    "detail": film.detail or None,
                }
            )
            each(film)
            if len(rows) == _GROUP:
                _flush(writer, rows, schema)
        _flush(writer, rows, schema)


def _flush(writer: pq.ParquetWriter, rows: list[dict[str, object]], schema: pa.Schema) -> None:
    writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    rows.clear()
