"""Every file of an archive by its kind: what is read as an image, and what every other file is.

``find_files`` leaves no file out. Files in zips count like any other; a file that cannot be opened
counts as an image, so that reading it says why. What the content said of a file is remembered
(``Seen``), so that an archive of files without suffix is opened once, not at every run.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lapvqa import code, storage
from lapvqa.errors import DicomError, MissingArtifactError, SchemaError
from lapvqa.ingest.archives import kinds, members
from lapvqa.ingest.archives.members import Entry
from lapvqa.ingest.archives.names import place
from lapvqa.ingest.columns import Mask, in_order, is_one_of, whole
from lapvqa.schemas import INVENTORY

PACKED_REPORTS = ("mimic-cxr-reports.zip",)
"""Zips that their layout reads: they hold reports only, 227,835 of them."""
_ENDS_AS_PACKED = f"(?:{'|'.join(map(re.escape, PACKED_REPORTS))})$"
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

    listed: pa.Table
    """Path, size, modification time (of a member CRC-32) and kind of every file."""
    faults: Mapping[str, str]
    """Zips and members that cannot be read, and why."""

    @cached_property
    def facts(self) -> dict[str, tuple[int, int]]:
        """Size and modification time of every file, size and CRC-32 of a member."""
        paths, sizes, times = (self.listed[name].to_pylist() for name in INVENTORY.names)
        return dict(zip(paths, zip(sizes, times, strict=True), strict=True))

    @cached_property
    def dicom(self) -> list[str]:
        """What is read as DICOM."""
        return self._paths(is_one_of(self.listed["kind"], [kinds.DICOM]))

    @cached_property
    def pictures(self) -> list[str]:
        """PNG and JPEG."""
        return self._paths(is_one_of(self.listed["kind"], [kinds.PICTURE]))

    @property
    def others(self) -> dict[str, str]:
        """The kind of every other file, zips that could be read among them."""
        rest = ~is_one_of(self.listed["kind"], [kinds.DICOM, kinds.PICTURE, kinds.FAULT])
        found = self.listed.filter(rest)
        return dict(zip(found["path"].to_pylist(), found["kind"].to_pylist(), strict=True))

    @property
    def paths(self) -> list[str]:
        """What a layout may look at: every file but hidden ones and those with a fault, sorted."""
        return self._paths(~is_one_of(self.listed["kind"], [kinds.FAULT, *kinds.LEFT_OUT]))

    def below(self, folder: str) -> Files:
        """Return the same files as they are called from a folder above; ``folder`` ends in /."""

        def named(path: str) -> str:
            return posixpath.normpath(folder + path) if path.startswith("../") else folder + path

        paths = pa.array(map(named, self.listed["path"].to_pylist()), pa.string())
        faults = {named(path): why for path, why in self.faults.items()}
        return Files(in_order(self.listed.set_column(0, "path", paths)), faults)

    def _paths(self, wanted: Mask) -> list[str]:
        paths: list[str] = self.listed["path"].filter(pa.array(wanted)).to_pylist()
        return paths


def find_files(
    folder: Path, entries: pa.Table | Iterable[Entry], seen: Seen | None = None
) -> Files:
    """Sort out ``entries`` (the inventory's rows) and the members of the zips among them."""
    seen = Seen() if seen is None else seen
    listed = _sorted_out(folder, as_table(entries), seen)
    packed = listed.filter(is_one_of(listed["kind"], [kinds.ZIP])).select(INVENTORY.names)
    if not len(packed):
        return Files(in_order(listed), {})
    expanded = members.expand(folder, list(_entries(packed)))
    faults = dict(expanded.faults)
    inner = _sorted_out(folder, as_table(expanded.entries), seen, faults.keys())
    nested = inner.filter(is_one_of(inner["kind"], [kinds.ZIP]))["path"].to_pylist()
    faults |= dict.fromkeys(nested, "expected files in a zip, found another zip")
    every = pa.concat_tables([listed, inner])
    has_fault = is_one_of(every["path"], faults)
    of_all = pc.if_else(pa.array(has_fault), kinds.FAULT, every["kind"])
    return Files(in_order(every.set_column(3, "kind", of_all)), faults)


def _sorted_out(
    folder: Path, listed: pa.Table, seen: Seen, faults: Collection[str] = ()
) -> pa.Table:
    """Add the kind of each file; of those with a fault there is no content to ask."""
    found = kinds.by_names(listed)
    unknown = np.flatnonzero(found == "")
    for row, entry in zip(unknown, _entries(listed.take(pa.array(unknown))), strict=True):
        found[row] = kinds.FAULT if entry[0] in faults else seen.kind(folder, entry)
    packed = whole(pc.match_substring_regex(listed["path"], _ENDS_AS_PACKED)).to_numpy(
        zero_copy_only=False
    )
    found[(found == kinds.ZIP) & packed] = "packed reports"
    return listed.append_column("kind", pa.array(found, pa.string()))


def as_table(entries: pa.Table | Iterable[Entry]) -> pa.Table:
    """Return the rows of an inventory as a table."""
    if isinstance(entries, pa.Table):
        return entries.cast(INVENTORY).replace_schema_metadata(None)
    columns = list(zip(*entries, strict=True)) or [(), (), ()]
    arrays = [pa.array(c, field.type) for c, field in zip(columns, INVENTORY, strict=True)]
    return pa.table(arrays, schema=INVENTORY)


def _entries(listed: pa.Table) -> Iterator[Entry]:
    return zip(*(listed[name].to_pylist() for name in INVENTORY.names), strict=True)


def find_known_files(folder: Path, entries: pa.Table | Iterable[Entry], work_dir: Path) -> Files:
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
