"""Columns of a csv or csv.gz by name, as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lapvqa.errors import SourceError


def columns(
    table: Path, required: Sequence[str], optional: Sequence[str] = ()
) -> list[Sequence[str]]:
    """Return the columns, required ones first; empty texts stand for one that is absent.

    Raises SourceError if the table is damaged or lacks a required column.
    """
    import pyarrow as pa
    from pyarrow import csv

    names = [*required, *optional]
    try:
        read = csv.read_csv(
            table,
            convert_options=csv.ConvertOptions(
                include_columns=names,
                include_missing_columns=True,
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=False,
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
        raise _unreadable(table, required, type(error).__name__) from None
    # No text is null, so a column of nulls is one that the table does not have.
    absent = [name for name in required if read[name].null_count]
    if absent:
        raise _unreadable(table, required, f"no {', '.join(absent[:4])}")
    return [[""] * len(read) if read[name].null_count else read[name].to_pylist() for name in names]


def rows(
    table: Path | None, required: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[str, ...]]:
    """Yield the table row by row; nothing if there is no table."""
    if table is None:
        return iter(())
    return zip(*columns(table, required, optional), strict=True)


def _unreadable(table: Path, required: Sequence[str], found: str) -> SourceError:
    more = "..." if len(required) > 4 else ""
    return SourceError(
        f"expected columns {', '.join(required[:4])}{more} in {table.name}, could not read them "
        f"({found})",
        hint=f"fetch {table.name} again from its publisher",
    )
