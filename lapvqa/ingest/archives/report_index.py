"""What files with several reports hold, remembered: each is read again only if it has changed.

A table of 377,110 rows takes seconds to list, and 200,000 messages a file to open each. So what was
found in a file stands in the private work folder, by its path, size and time as the inventory
lists them, under a digest of the code, the key and what local.yaml says of reports. Texts are not
among it, and names of studies are keyed hashes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lapvqa import storage
from lapvqa.dicom.reasons import Reason
from lapvqa.errors import MissingArtifactError, SchemaError
from lapvqa.ingest.archives.messages import Hashes, Keys, Names
from lapvqa.ingest.archives.protocol import Refusal
from lapvqa.ingest.columns import taken, unordered

INDEX = pa.schema(
    [
        pa.field("file", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("time", pa.int64(), nullable=False),
        pa.field("path", pa.string()),
        pa.field("place", pa.list_(pa.int64())),
        pa.field("source", pa.string(), nullable=False),
        pa.field("length", pa.int64()),
        pa.field("mark", pa.int64()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("written", pa.string()),
        *(pa.field(name, pa.string()) for name in Keys._fields),
    ]
)
"""A row for each report; one without ``path`` for a file that holds none, and why (``detail``)."""
BETWEEN, WITHIN = "\x1f", "\x1e"
"""What separates several names of a kind in the index, and several keys of one name."""
Stamp = tuple[int, int]


class Entry(NamedTuple):
    """A report within a file that holds several, or that names its study itself."""

    path: str
    file: str
    place: tuple[int, ...]
    """Where in the file: the number of a message, or ``Row.spans``."""
    source: str
    """table | hl7 | fhir"""
    names: Names | Keys
    stamp: Stamp
    refusal: Refusal | None


class Kept(Collection[Entry]):
    """Entries as the index keeps them: rows, of which entries are made when somebody asks."""

    def __init__(self, table: pa.Table, start: int, length: int) -> None:
        self.table, self.start, self.length = table, start, length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Entry]:
        return entries_of(self.table.slice(self.start, self.length))

    def __contains__(self, entry: object) -> bool:
        return any(entry == one for one in self)


def gathered(kept: Sequence[Kept]) -> pa.Table:
    """Return the rows of all of them, which one index keeps."""
    if not kept:
        return INDEX.empty_table()
    spans = [np.arange(own.start, own.start + own.length) for own in kept]
    return taken(kept[0].table, np.concatenate(spans))


class Entries:
    """The reports of many files: rows of those that are known, entries of those just read."""

    def __init__(self, parts: Sequence[Collection[Entry]]) -> None:
        self.parts = parts
        self.kept = gathered([own for own in parts if isinstance(own, Kept)])
        read = (entry for own in parts if not isinstance(own, Kept) for entry in own)
        self.read = {entry.path: entry for entry in read}

    def __iter__(self) -> Iterator[Entry]:
        yield from entries_of(self.kept)
        yield from self.read.values()

    def get(self, path: str) -> Entry | None:
        """Return the report of this path, if it is one of them."""
        row = self._rows.get(path)
        if row is None:
            return self.read.get(path)
        return next(entries_of(self.kept.slice(row, 1)))

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {path: row for row, path in enumerate(self.kept["path"].to_pylist())}

    @property
    def paths(self) -> list[str]:
        """The paths of all of them."""
        return [*self.kept["path"].to_pylist(), *self.read]

    @property
    def files(self) -> set[str]:
        """The files in which they lie."""
        return {*pc.unique(self.kept["file"]).to_pylist()} | {e.file for e in self.read.values()}


class Content(NamedTuple):
    """What was found in a file."""

    entries: Collection[Entry]
    source: str
    """Empty: no file of reports."""
    not_read: str = ""
    """Why a table is not read."""


class ReportIndex:
    """The contents of files, as they are known from the last run."""

    def __init__(self, file: Path, hashes: Hashes, stamps: Mapping[str, Stamp]) -> None:
        """Take where it is kept, and size and time of the files as they are listed now."""
        self._file, self._hashes, self._stamps = file, hashes, stamps
        self._known = _load(file)
        self._used: dict[str, tuple[Stamp, Content]] = {}
        self._is_new = False

    def recall(self, path: str) -> Content | None:
        """Return what is known of a file; None if it has to be read."""
        known = self._known.get(path)
        if known is None or known[0] != self._stamps.get(path):
            return None
        self._used[path] = known
        return known[1]

    def add(self, path: str, content: Content) -> Content:
        """Remember what was found in a file; return it with keys in place of names."""
        hashed = [
            entry._replace(names=self._hashes.keys(entry.names))
            if isinstance(entry.names, Names)
            else entry
            for entry in content.entries
        ]
        content = content._replace(entries=hashed)
        stamp = self._stamps.get(path)
        may_pass = any(
            entry.refusal is not None and entry.refusal.reason == Reason.UNREADABLE
            for entry in hashed
        )
        if stamp is not None and stamp != (0, 0) and not may_pass:  # 0, 0: it was not to be asked
            self._used[path] = stamp, content
            self._is_new = True
        return content

    def save(self) -> None:
        """Write what was used or added, if it is not what is there."""
        if not self._is_new and len(self._used) == len(self._known):
            return
        for old in self._file.parent.glob("report-index-*.parquet"):
            if old != self._file:
                old.unlink()
        kept = [c.entries for _, c in self._used.values() if isinstance(c.entries, Kept)]
        rows = [
            row
            for path, known in self._used.items()
            if not isinstance(known[1].entries, Kept)
            for row in _rows(path, *known)
        ]
        columns = list(zip(*rows, strict=True)) or [()] * len(INDEX)
        new = pa.table(list(map(pa.array, columns, INDEX.types)), schema=INDEX)
        storage.write_table(self._file, pa.concat_tables([gathered(kept), new]), INDEX)
        self._known, self._is_new = dict(self._used), False


def index_file(work_dir: Path, described: Mapping[str, object]) -> Path:
    """Return where the index of an archive lies that was made under these facts."""
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
    return work_dir / f"report-index-{digest}.parquet"


def _rows(path: str, stamp: Stamp, content: Content) -> Iterable[tuple[object, ...]]:
    if not content.entries:
        nothing = (None,) * (1 + len(Keys._fields))
        yield path, *stamp, None, None, content.source, None, None, None, content.not_read, *nothing
    for entry in content.entries:
        refusal = entry.refusal
        why = (refusal.reason.value, refusal.detail, refusal.written) if refusal else (None,) * 3
        assert isinstance(entry.names, Keys)
        keys = (
            BETWEEN.join(WITHIN.join(one) if isinstance(one, tuple) else one for one in own)
            if own
            else None
            for own in entry.names
        )
        yield path, *stamp, entry.path, entry.place, entry.source, *entry.stamp, *why, *keys


def _load(file: Path) -> dict[str, tuple[Stamp, Content]]:
    try:
        table = storage.read_table(file, INDEX, made_by="ingest").replace_schema_metadata(None)
    except (MissingArtifactError, SchemaError):
        return {}
    starts = np.flatnonzero(np.diff(unordered(table["file"]), prepend=-1))
    names = ("file", "size", "time", "path", "source", "detail")
    first = [table[name].take(pa.array(starts)).to_pylist() for name in names]
    known: dict[str, tuple[Stamp, Content]] = {}
    for start, length, path, size, time, report, source, detail in zip(
        starts, np.diff(starts, append=len(table)), *first, strict=True
    ):
        content = Content([], source, detail)
        if report is not None:
            content = Content(Kept(table, int(start), int(length)), source)
        known[path] = (size, time), content
    return known


def entries_of(rows: pa.Table) -> Iterator[Entry]:
    """Yield rows of the index as entries."""
    columns = [rows[name].to_pylist() for name in INDEX.names]
    for file, _, _, path, place, source, *rest in zip(*columns, strict=True):
        length, mark, reason, detail, written, *keys = rest
        refusal = None if reason is None else Refusal(Reason(reason), detail, written)
        yield Entry(path, file, tuple(place), source, _keys(*keys), (length, mark), refusal)


def _keys(
    studies: str | None,
    accessions: str | None,
    instances: str | None,
    image_paths: str | None,
    patients: str | None,
) -> Keys:
    return Keys(
        tuple(studies.split(BETWEEN)) if studies else (),
        tuple(tuple(one.split(WITHIN)) for one in accessions.split(BETWEEN)) if accessions else (),
        tuple(instances.split(BETWEEN)) if instances else (),
        tuple(image_paths.split(BETWEEN)) if image_paths else (),
        tuple(patients.split(BETWEEN)) if patients else (),
    )
