"""Files of public datasets, read by column name, and the account of what became of their rows.

What does not fit is an error that names file, line and column. What is known to be of no use is
counted: read = kept + left out, by reason, so that nothing goes silently.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeVar

from lapvqa.errors import OtherArchiveError, SourceError

NOT_STORED = "is not stored"
"""How the reason ends for which a row is left out whose image ingest has not written."""

_DEEPEST = 5
_MOST_FOLDERS = 500

Value = TypeVar("Value")

_GZ = ("", ".gz")


@dataclass(frozen=True)
class Account:
    """Counts of one ``unit`` (rows, images); ``left_out``: reason -> how many."""

    unit: str
    read: int
    kept: int
    left_out: Mapping[str, int]

    def __post_init__(self) -> None:
        if self.read != self.kept + sum(self.left_out.values()):
            raise ValueError(f"{self.unit}: {self.read} read, {self.kept} kept, {self.left_out}")

    def describe(self) -> dict[str, int]:
        """Return the counts under names for an evaluation's protocol."""
        reasons = {
            f"{self.unit}_left_out: {reason}": number
            for reason, number in sorted(self.left_out.items())
            if number
        }
        return {f"{self.unit}_read": self.read, f"{self.unit}_kept": self.kept, **reasons}

    def require_some(self, file: str, *, hint: str) -> None:
        """Raise SourceError with the reasons if nothing was kept.

        OtherArchiveError if most of it is about images that are not stored here.
        """
        if self.kept:
            return
        present = {reason: n for reason, n in sorted(self.left_out.items()) if n}
        reasons = "; ".join(f"{reason}: {n}" for reason, n in present.items())
        not_stored = sum(n for reason, n in present.items() if reason.endswith(NOT_STORED))
        raise (OtherArchiveError if 2 * not_stored > self.read else SourceError)(
            f"{file}: expected {self.unit} to use, found none among {self.read}"
            + (f" ({reasons})" if reasons else ""),
            hint=hint,
        )


def find(folder: Path, names: Sequence[str], *, below: Sequence[str] = ("",)) -> Path:
    """Return the first of ``names``, plain or with .gz, in ``folder`` or the folders ``below``.

    Raises SourceError that names all that was looked for, and where one lies deeper.
    """
    path = find_optional(folder, names, below=below)
    if path is None:
        raise _not_found(folder, names)
    return path


def find_optional(
    folder: Path, names: Sequence[str], *, below: Sequence[str] = ("",)
) -> Path | None:
    """Do as ``find``; None if there is none."""
    candidates = (folder / place / (name + end) for place in below for name in names for end in _GZ)
    return next((path for path in candidates if path.is_file()), None)


def require(path: Path) -> None:
    """Raise SourceError if ``path`` is missing; the hint knows where it lies deeper."""
    if not path.is_file():
        raise _not_found(path.parent, [path.name])


def read_header(path: Path) -> list[str]:
    """Return the names of a csv file's columns; raises SourceError."""
    require(path)
    with _open(path) as handle:
        return [name.strip() for name in next(csv.reader(handle), [])]


def read_rows(
    path: Path, columns: Sequence[str], *, optional: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, {column: text}) with ``columns`` and those ``optional`` ones there are.

    A plain or gzipped csv file. Raises SourceError if the file or a column is missing, a line has
    too few or too many fields, or the text is not UTF-8.
    """
    require(path)
    with _open(path) as handle:
        reader = csv.reader(handle)
        header = [name.strip() for name in next(reader, [])]
        _check_header(path.name, header, columns)
        wanted = [*columns, *(name for name in optional if name in header)]
        places = [header.index(name) for name in wanted]
        last = max(places)
        for fields in reader:
            if not fields:
                continue
            if len(fields) <= last:
                raise SourceError(
                    f"{path.name}, line {reader.line_num}: expected a value for each of "
                    f"{', '.join(wanted)}; the line ends too early",
                    hint="download the file again; it may be cut off",
                )
            if any(fields[len(header) :]):
                raise SourceError(
                    f"{path.name}, line {reader.line_num}: expected {len(header)} fields as in the "
                    f"header, found {len(fields)}",
                    hint="put texts that contain commas into quotes, or download the file again",
                )
            values = (fields[place].strip() for place in places)
            yield reader.line_num, dict(zip(wanted, values, strict=True))


def read_lines(path: Path) -> list[str]:
    """Return the non-empty lines of a text file; SourceError if it is missing or empty."""
    require(path)
    with _open(path) as handle:
        lines = [line.strip() for line in handle]
    lines = [line for line in lines if line]
    if not lines:
        raise SourceError(
            f"{path.name}: expected one name per line, found nothing",
            hint="download the file again",
        )
    return lines


def read_json(path: Path, kind: type[Value]) -> Value:
    """Return the content of a JSON file, a list or a dict; raises SourceError."""
    require(path)
    try:
        with _open(path) as handle:
            content = json.load(handle)
    except ValueError:
        raise SourceError(
            f"{path.name}: expected JSON, found other text",
            hint="download the file again; it may be cut off",
        ) from None
    if not isinstance(content, kind):
        raise SourceError(
            f"{path.name}: expected a JSON {kind.__name__}, found a {type(content).__name__}",
            hint="use the file as published",
        )
    return content


def member(entry: Any, name: str, kind: type[Value], place: str) -> Value:
    """Return ``entry[name]`` of a JSON object, of the given type; raises SourceError."""
    value: Value = member_of(entry, name, (kind,), place)
    return value


def member_of(entry: Any, name: str, kinds: tuple[type, ...], place: str) -> Any:
    """Return ``entry[name]`` of a JSON object, of one of the types; raises SourceError."""
    if not isinstance(entry, dict) or name not in entry:
        given = ", ".join(map(str, entry)) if isinstance(entry, dict) else type(entry).__name__
        raise SourceError(
            f"{place}: expected the key {name!r}, found {given}",
            hint="use the file as published; if its publisher renamed the key, rename it back",
        )
    value = entry[name]
    # In Python True is a whole number, in these files it is not.
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise SourceError(
            f"{place}: key {name} is of type {type(value).__name__}, expected "
            + " or ".join(kind.__name__ for kind in kinds),
            hint="use the file as published",
        )
    return value


def number(text: str, column: str, place: str) -> float:
    """Return ``text`` as a finite number; SourceError names column and place."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SourceError(
            f"{place}: column {column} is {text!r}, expected a number",
            hint="use the file as published",
        )
    return value


def whole(text: str, column: str, place: str) -> int:
    """Return ``text`` as a whole number (7 or 7.0); SourceError names column and place."""
    value = number(text, column, place)
    if value != int(value):
        raise SourceError(
            f"{place}: column {column} is {text!r}, expected a whole number",
            hint="use the file as published",
        )
    return int(value)


def choice(text: str, known: Mapping[str, Value], column: str, place: str) -> Value:
    """Return what ``known`` has for ``text``; SourceError names the nearest known word."""
    if text not in known:
        raise SourceError(
            f"{place}: column {column} is {text!r}; {nearest(text, list(known))}",
            hint="use the file as published; if its publisher renamed the word, rename it back",
        )
    return known[text]


def nearest(name: str, known: Sequence[str]) -> str:
    """Return a phrase that names the closest known word, or all of them."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"nearest known: {close[0]}" if close else f"known: {', '.join(known)}"


@contextmanager
def _open(path: Path) -> Iterator[TextIO]:
    """Open a plain or gzipped text file; what shows while it is read becomes SourceError."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as handle:
            yield handle
    except (UnicodeDecodeError, csv.Error):
        raise SourceError(
            f"{path.name}: expected text in UTF-8, found other bytes",
            hint="download the file again, or save it as UTF-8",
        ) from None
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise SourceError(
            f"{path.name}: expected a whole gzip file, found a damaged one",
            hint="download the file again",
        ) from None


def _check_header(name: str, header: Sequence[str], columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in header]
    if missing:
        raise SourceError(
            f"{name}: expected the column {missing[0]!r}, found {', '.join(map(repr, header))}",
            hint="use the file as published; if its publisher renamed the column, rename it back",
        )
    repeated = [column for column in columns if header.count(column) > 1]
    if repeated:
        raise SourceError(
            f"{name}: expected the column {repeated[0]!r} once, found it twice",
            hint="use the file as published",
        )


def _not_found(folder: Path, names: Sequence[str]) -> SourceError:
    near = _deeper(folder, {name + end for name in names for end in _GZ})
    wanted = " or ".join(names)
    hint = f"set the dataset's path to the folder that holds {wanted}, or download it"
    if near is not None:
        hint = f"the file lies deeper: set the path to the folder {near.relative_to(folder)}"
    return SourceError(f"expected {wanted} in the dataset's folder, found none", hint=hint)


def _deeper(folder: Path, names: set[str]) -> Path | None:
    """Return a folder below that holds one of the names; the search has an end."""
    level = [folder] if folder.is_dir() else []
    for _ in range(_DEEPEST):
        level = [below for above in level for below in sorted(above.glob("*/"))][:_MOST_FOLDERS]
        for below in level:
            if any((below / name).is_file() for name in names):
                return below
    return None
