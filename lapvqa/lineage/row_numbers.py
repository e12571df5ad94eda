"""Row numbers that stand for patients and studies, so that no key stands in the ledger itself.

ledger/private/patient.txt and study.txt: a key per line, in the order in which they were met; the
line's number is the row number. Never under git. A key that is erased leaves a line of dashes: the
numbers of all others stay.
"""

from __future__ import annotations

import base64
import fcntl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from pyroaring import BitMap

from lapvqa.project import Project

PATIENT, STUDY = "patient", "study"


class RowNumbers:
    """The numbers of one kind of key, PATIENT or STUDY."""

    def __init__(self, project: Project, kind: str) -> None:
        self._path = project.row_numbers / f"{kind}.txt"

    def keys(self) -> list[str]:
        """Return all keys by row number; dashes where one was erased."""
        try:
            return self._path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []

    def number(self, keys: Iterable[str]) -> BitMap:
        """Return the row numbers of keys; unknown ones get the next numbers."""
        with self._opened() as file:
            known = {key: row for row, key in enumerate(file.read().decode().splitlines())}
            new = [key for key in sorted(set(keys)) if key not in known]
            file.write("".join(f"{key}\n" for key in new).encode())
            known |= {key: row for row, key in enumerate(new, start=len(known))}
        return BitMap(known[key] for key in keys)

    def find(self, key: str) -> int | None:
        """Return the row number of a key; None if it was never met, or erased."""
        keys = self.keys()
        return keys.index(key) if key in keys else None

    def find_all(self, keys: Iterable[str]) -> BitMap:
        """Return the row numbers of those of ``keys`` that were met and not erased."""
        wanted = set(keys)
        return BitMap(row for row, key in enumerate(self.keys()) if key in wanted)

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

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch(mode=0o600)
        with self._path.open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file


def packed(rows: BitMap) -> str:
    """Return row numbers as text: base64 of a compressed bitmap (roaringbitmap.org/spec)."""
    rows.run_optimize()
    return base64.b64encode(rows.serialize()).decode()


def unpacked(text: str) -> BitMap:
    """Return the row numbers that ``packed`` wrote."""
    return BitMap.deserialize(base64.b64decode(text))
