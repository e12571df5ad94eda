"""Read csv files of public datasets by column name, and say exactly what does not fit."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path

from lapvqa.errors import SourceError


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, {column: text}) with at least ``columns``; the rest is ignored.

    Raises SourceError if the file or a column is missing, a row is too short, or the text is not
    UTF-8.
    """
    require(path)
    with path.open(encoding="utf-8-sig", newline="") as handle:
        reader = csv.DictReader(handle)
        try:
            _check_header(path.name, reader.fieldnames or [], columns)
            for row in reader:
                if any(row[column] is None for column in columns):
                    raise SourceError(
                        f"{path.name}, line {reader.line_num}: expected a value for each of "
                        f"{', '.join(columns)}; the line ends too early",
                        hint="download the file again; it may be cut off",
                    )
                yield reader.line_num, {column: row[column].strip() for column in columns}
        except (UnicodeDecodeError, csv.Error) as error:
            raise SourceError(
                f"{path.name}: expected a csv file in UTF-8, found other bytes",
                hint="download the file again, or save it as UTF-8",
            ) from error


def read_lines(path: Path) -> list[str]:
    """Return the non-empty lines of a text file; SourceError if it is missing or empty."""
    require(path)
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        raise SourceError(
            f"{path.name}: expected one name per line, found nothing",
            hint="download the file again",
        )
    return lines


def require(path: Path) -> None:
    """Raise SourceError if ``path`` is missing; the hint knows a folder one level off."""
    if path.is_file():
        return
    below = sorted(path.parent.glob("*")) if path.parent.is_dir() else []
    near = next((one.name for one in below if (one / path.name).is_file()), None)
    raise SourceError(
        f"expected {path.name} in the dataset's folder, found none",
        hint=f"the file lies one level deeper: set the path to the folder {near}"
        if near
        else f"set the dataset's path to the folder that holds {path.name}, or download it",
    )


def nearest(name: str, known: Sequence[str]) -> str:
    """Return a phrase that names the closest known word, or all of them."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"nearest known: {close[0]}" if close else f"known: {', '.join(known)}"


def _check_header(name: str, found: Sequence[str], columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in found]
    if missing:
        raise SourceError(
            f"{name}: expected the column {missing[0]!r}, found {', '.join(map(repr, found))}",
            hint="use the file as published; if its publisher renamed the column, rename it back",
        )
