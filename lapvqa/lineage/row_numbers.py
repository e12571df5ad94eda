"""Row numbers that stand for patients and studies, so that no key stands in the ledger itself.

ledger/private/patient.txt and study.txt: a key per line, in the order in which they were met; the
line's number is the row number. Never under git. A key that is erased leaves a line of dashes: the
numbers of all others stay. A list that is shorter than what the ledger has recorded was lost, in
whole or in part: it is neither trusted nor gone on with, for later numbers would name others.
"""

from __future__ import annotations

import base64
import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

from pyroaring import BitMap

from lapvqa.errors import ConfigError
from lapvqa.lineage import ledger
from lapvqa.project import Project

PATIENT, STUDY = "patient", "study"
RESTORE = (
    "restore ledger/private from its backup (it is neither in git nor in DVC's cache), in a clone "
    "from where the trainings ran: without it nobody can tell which models sampled a patient, and "
    "the ledger's row numbers would come to name others"
)
_NAME_ROWS = (ledger.TRAINED_ON, ledger.LOOK, ledger.ARRIVAL)
_last_rows: dict[str, dict[str, int]] = {}
"""What this process has read: id of an entry, which covers what it says -> kind -> last row."""


class RowNumbers:
    """The numbers of one kind of key, PATIENT or STUDY."""

    def __init__(self, project: Project, kind: str) -> None:
        self._project, self._kind = project, kind
        self._path = project.row_numbers / f"{kind}.txt"

    def keys(self) -> list[str]:
        """Return the keys that are here by row number; dashes where one was erased."""
        try:
            return self._path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []

    def number(self, keys: Iterable[str]) -> BitMap:
        """Return the row numbers of keys; unknown ones get the next numbers, flushed to disk.

        ConfigError where the list, or a part of it, was lost.
        """
        self.require()
        with self._opened() as file:
            known = {key: row for row, key in enumerate(file.read().decode().splitlines())}
            new = [key for key in sorted(set(keys)) if key not in known]
            file.write("".join(f"{key}\n" for key in new).encode())
            file.flush()
            os.fsync(file.fileno())  # the ledger, which names these rows, is on disk before it ends
            known |= {key: row for row, key in enumerate(new, start=len(known))}
        return BitMap(known[key] for key in keys)

    def find(self, key: str) -> int | None:
        """Return the row number of a key; None if it was never met, or erased."""
        keys = self._whole()
        return keys.index(key) if key in keys else None

    def find_all(self, keys: Iterable[str]) -> BitMap:
        """Return the row numbers of those of ``keys`` that were met and not erased."""
        wanted = set(keys)
        return BitMap(row for row, key in enumerate(self._whole()) if key in wanted)

    def erase(self, key: str) -> int | None:
        """Overwrite a key with dashes, in place; return its row number, None if unknown."""
        row = self.find(key)
        if row is None:
            return None
        with self._opened() as file:
            lines = file.read().split(b"\n")
            file.seek(sum(len(line) + 1 for line in lines[:row]))
            file.write(b"-" * len(lines[row]))
        return row

    def fault(self) -> str:
        """Say that the list is shorter than what the ledger has recorded; nothing if it is not."""
        last, known = _last_row(self._project, self._kind), len(self.keys())
        if last < known:
            return ""
        name = f"ledger/private/{self._kind}.txt"
        return f"{name}: the ledger has row {last}, it has {known} rows"

    def require(self) -> None:
        """Raise ConfigError where the list, or a part of it, was lost."""
        if fault := self.fault():
            raise lost(fault)

    def _whole(self) -> list[str]:
        """Return the keys; none in a clone, into which git brings no list."""
        if self._project.row_numbers.exists():
            self.require()
        return self.keys()

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch(mode=0o600)
        with self._path.open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file


def lost(fault: str) -> ConfigError:
    """Return the error for lists that are not those of the ledger's rows."""
    return ConfigError(
        f"expected the lists of keys by which the ledger knows patients; {fault}", hint=RESTORE
    )


def _last_row(project: Project, kind: str) -> int:
    """Return the highest row number of a kind that the ledger names, -1 if none."""
    last = -1
    for entry in ledger.entries(project):
        if entry.payload is None or entry.kind not in _NAME_ROWS:
            continue
        if entry.id not in _last_rows:
            rows = _rows_of(entry.kind, entry.payload)
            _last_rows[entry.id] = {each: max(found, default=-1) for each, found in rows.items()}
        last = max(last, _last_rows[entry.id][kind])
    return last


def _rows_of(entry_kind: str, said: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return the last row of each bitmap that an entry has, by the kind of key."""
    texts: dict[str, list[str]] = {PATIENT: [], STUDY: []}
    if entry_kind == ledger.TRAINED_ON:
        for role in said.get("roles", {}).values():
            texts[PATIENT].append(role["patients"])
            texts[STUDY] += role["studies"].values()
    elif entry_kind == ledger.LOOK and "patients" in said:
        texts[PATIENT].append(said["patients"])
    elif entry_kind == ledger.ARRIVAL and said.get("study"):
        texts[STUDY].append(said["study"])
    return {
        kind: [rows.max() for rows in map(unpacked, own) if rows] for kind, own in texts.items()
    }


def packed(rows: BitMap) -> str:
    """Return row numbers as text: base64 of a compressed bitmap (roaringbitmap.org/spec)."""
    rows.run_optimize()
    return base64.b64encode(rows.serialize()).decode()


def unpacked(text: str) -> BitMap:
    """Return the row numbers that ``packed`` wrote."""
    return BitMap.deserialize(base64.b64decode(text))
