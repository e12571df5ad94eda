"""Features as a table: a row per film, written while the next films are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lapvqa import __version__, storage
from lapvqa.errors import EXIT_BAD_DATA, LapvqaError
from lapvqa.inference.encoder import Encoder
from lapvqa.inference.films import Film, Source

MARK = b"lapvqa embed"
"""Which program wrote a file: stands in its metadata."""

SUFFIX = ".parquet"

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


class NoFilmError(LapvqaError):
    """No film could be used, and a table of an earlier time is there."""

    exit_code = EXIT_BAD_DATA


def write(
    encoder: Encoder,
    sources: Source | Iterable[Source],
    path: Path,
    *,
    each: Callable[[Film], None] = lambda film: None,
) -> None:
    """Write the features of films to ``path``, whole or not at all; ``each`` is told of each film.

    The file's metadata name the model by the sha256 of its weights, as the evaluations do. Raises
    NoFilmError, and leaves ``path`` as it is, rather than replace a table by one without features.
    """
    is_any_taken = False
    facts = {
        b"made_by": MARK,
        b"lapvqa": __version__.encode(),
        b"encoder_sha256": encoder.digest.encode(),
        b"encoder": encoder.about.encode(),
        b"feature": b"mean of the tokens",
    }
    schema = COLUMNS.with_metadata(facts)
    with (
        storage.atomic_path(path) as temporary,
        temporary.open("wb") as file,  # by its path pyarrow takes no name that is not UTF-8
        pq.ParquetWriter(file, schema) as writer,
    ):
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
            is_any_taken |= feature is not None
            each(film)
            if len(rows) == _GROUP:
                _flush(writer, rows, schema)
        _flush(writer, rows, schema)
        if not is_any_taken and path.exists():
            raise NoFilmError(
                f"expected a film that can be used, found none: {path} stays as it was",
                hint="what is wrong with each film is told above; `--out` names another table",
            )


def _flush(writer: pq.ParquetWriter, rows: list[dict[str, object]], schema: pa.Schema) -> None:
    writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    rows.clear()
