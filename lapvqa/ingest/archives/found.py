"""Every file of an archive by its kind: what is read as an image, and what every other file is.

``find_files`` leaves no file out. Files in zips count like any other; a file that cannot be opened
counts as an image, so that reading it says why. What the content said of a file is remembered
(``Seen``), so that an archive of files without suffix is opened once, not at every run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from lapvqa import code, storage
from lapvqa.errors import DicomError, MissingArtifactError, SchemaError
from lapvqa.ingest.archives import kinds, members
from lapvqa.ingest.archives.members import Entry
from lapvqa.ingest.archives.names import place

PACKED_REPORTS = ("mimic-cxr-reports.zip",)
"""Zips that their layout reads: they hold reports only, 227,835 of them."""
_SEEN = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("stamp", pa.int64(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
    ]
)


@dataclass
class Seen:
    """What the content said of the files that were opened, by path, size and stamp."""

    kinds: dict[Entry, str] = field(default_factory=dict)
    used: dict[Entry, str] = field(default_factory=dict)

    def kind(self, folder: Path, entry: Entry) -> str:
        """Return a file's kind by its content; a file that cannot be opened counts as DICOM."""
        kind = self.kinds.get(entry)
        if kind is None:
            try:
                kind = kinds.by_content(
                    members.read_head(place(folder, entry[0]), kinds.HEAD_BYTES)
                )
            except DicomError:
                return kinds.DICOM  # not remembered: the cause may be gone by then
        self.used[entry] = kind
        return kind


@dataclass(frozen=True)
class Files:
    """The files of an archive, those in zips among them; every list is in order of path.

    ``pictures`` carry no identifiers: they are images only where a layout knows their names.
    """

    facts: Mapping[str, tuple[int, int]]
    """Size and modification time of every file, size and CRC-32 of a member."""
    dicom: Sequence[str]
    pictures: Sequence[str]
    faults: Mapping[str, str]
    """Zips and members that cannot be read, and why."""
    others: Mapping[str, str]
    """The kind of every other file, zips that could be read among them."""

    @property
    def paths(self) -> list[str]:
        """What a layout may look at: every file but hidden ones and those with a fault, sorted."""
        return sorted(
            path
            for path in self.facts
            if path not in self.faults and self.others.get(path) not in kinds.LEFT_OUT
        )


def find_files(folder: Path, entries: Iterable[Entry], seen: Seen | None = None) -> Files:
    """Sort out ``entries`` (the inventory's rows) and the members of the zips among them."""
    seen = Seen() if seen is None else seen
    facts: dict[str, tuple[int, int]] = {}
    by_kind: dict[str, list[str]] = {kinds.DICOM: [], kinds.PICTURE: []}
    others: dict[str, str] = {}
    zips: list[Entry] = []
    faults: dict[str, str] = {}

    def sort_in(entry: Entry, *, in_zip: bool) -> None:
        path = entry[0]
        facts[path] = entry[1:]
        kind = kinds.by_name(*entry) or seen.kind(folder, entry)
        if kind in by_kind:
            by_kind[kind].append(path)
        elif kind != kinds.ZIP:
            others[path] = kind
        elif path.endswith(PACKED_REPORTS):
            others[path] = "packed reports"
        elif in_zip:
            faults[path] = "expected files in a zip, found another zip"
        else:
            zips.append(entry)

    for entry in entries:
        sort_in(entry, in_zip=False)
    expanded = members.expand(folder, zips)
    faults |= expanded.faults
    others |= {path: kinds.ZIP for path, _, _ in zips if path not in faults}
    for entry in expanded.entries:
        if entry[0] in faults:
            facts[entry[0]] = entry[1:]
        else:
            sort_in(entry, in_zip=True)
    dicom, pictures = (sorted(paths) for paths in by_kind.values())
    return Files(facts, dicom, pictures, faults, others)


def find_known_files(folder: Path, entries: Iterable[Entry], work_dir: Path) -> Files:
    """Return the same, with what was seen before kept in ``work_dir``, a private folder."""
    digest = code.digest(kinds.__name__)[:16]
    path = work_dir / f"kinds-{digest}.parquet"
    seen = _load(path)
    files = find_files(folder, entries, seen)
    if seen.used != seen.kinds:
        for old in work_dir.glob("kinds-*.parquet"):
            old.unlink()
        keys = list(zip(*seen.used, strict=True)) if seen.used else [(), (), ()]
        columns = [*keys, list(seen.used.values())]
        arrays = [pa.array(c, f.type) for c, f in zip(columns, _SEEN, strict=True)]
        storage.write_table(path, pa.table(arrays, schema=_SEEN), _SEEN)
    return files


def _load(path: Path) -> Seen:
    try:
        table = storage.read_table(path, _SEEN, made_by="ingest")
    except (MissingArtifactError, SchemaError):
        return Seen()
    paths, sizes, stamps, found = (table[name].to_pylist() for name in _SEEN.names)
    return Seen(dict(zip(zip(paths, sizes, stamps, strict=True), found, strict=True)))
