"""Files of public datasets, read by column name; what does not fit is said exactly."""

from __future__ import annotations

import csv
import difflib
import gzip
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, TypeVar

from lapvqa.errors import SourceError

_DEEPEST = 5
_MOST_FOLDERS = 500

Value = TypeVar("Value")

_GZ = ("", ".gz")


def find(folder: Path, names: Sequence[str], *, below: Sequence[str] = ("",)) -> Path:
    """Return the first of ``names``, plain or with .gz, in ``folder`` or the folders ``below``.

    Raises SourceError that names all that was looked for, and where one lies deeper.
    """
    found = find_optional(folder, names, below=below)
    if found is None:
        raise _not_found(folder, names)
    return found


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
        found = ", ".join(map(str, entry)) if isinstance(entry, dict) else type(entry).__name__
        raise SourceError(
            f"{place}: expected the key {name!r}, found {found}",
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


def _check_header(name: str, found: Sequence[str], columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in found]
    if missing:
        raise SourceError(
            f"{name}: expected the column {missing[0]!r}, found {', '.join(map(repr, found))}",
            hint="use the file as published; if its publisher renamed the column, rename it back",
        )
    repeated = [column for column in columns if found.count(column) > 1]
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
        level = [one for at in level for one in sorted(at.glob("*/"))][:_MOST_FOLDERS]
        for one in level:
            if any((one / name).is_file() for name in names):
                return one
    return None
