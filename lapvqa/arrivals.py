"""The list of what has arrived: .lapvqa/arrivals.jsonl, a line per event, only ever added to.

    {"at": "2026-11-29T10:15:03.251907+00:00", "event": "study", "source": "WARD",
     "study": "6f1d...", "files": 2, "bytes": 24117250, "id": "...", "accession": ["91c4..."]}

``event`` is ``study`` (new), ``report`` (new) or ``amended`` (more or other files of a study that
was complete, or a report in place of an earlier one). ``study`` and ``accession`` are keyed hashes
(``lapvqa.identity``); nothing else in a line names anybody. A report whose study has not arrived
has ``study`` null. Of a file with several reports the first line has its files and bytes.
"""

from __future__ import annotations

import fcntl
import json
import os
from bisect import insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

STUDY, REPORT, AMENDED = "study", "report", "amended"
Line = dict[str, Any]


@dataclass(frozen=True)
class Arrival:
    """What came of one study in one event."""

    at: datetime
    """In UTC."""
    study: str
    kind: str
    """``STUDY``, ``REPORT`` or ``AMENDED``."""
    bytes: int = 0
    source: str = ""


def now() -> str:
    """Return the time as lines have it.

    Of the same precision as a training's begin: what comes in the same second is behind it or not.
    """
    return datetime.now(UTC).isoformat(timespec="microseconds")


def append(path: Path, lines: Iterable[Line]) -> None:
    """Add lines that are not there yet by their ``id``, flushed to disk; safe with several."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        known = {line.get("id") for line in _last(file.fileno())}
        new = [json.dumps(line, sort_keys=True) for line in lines if line["id"] not in known]
        size = os.fstat(file.fileno()).st_size
        torn = size and os.pread(file.fileno(), 1, size - 1) != b"\n"
        text = "".join(f"{line}\n" for line in new)
        file.write((b"\n" if torn and text else b"") + text.encode())
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> Iterator[Line]:
    """Yield the lines, oldest first; torn ones are passed over."""
    if path.exists():
        with path.open("rb") as file:
            yield from filter(None, map(_parsed, file))


def of_studies(path: Path) -> Sequence[Arrival]:
    """Return what came of known studies, in the order of its times.

    A line that is in writing waits; what this process has read before is not parsed again.
    """
    if not path.exists():
        return ()
    with path.open("rb") as file:
        stat = os.fstat(file.fileno())
        known = _read.get(path)
        if known is None or known.inode != stat.st_ino or known.size > stat.st_size:
            known = _read[path] = _Read(stat.st_ino)
        file.seek(known.size)
        whole, end, _ = file.read().rpartition(b"\n")
    for line in whole.splitlines():
        arrival = _of_study(_parsed(line) or {})
        if arrival is not None:
            insort(known.arrivals, arrival, key=lambda one: one.at)
    known.size += len(whole) + len(end)
    return known.arrivals


def first_of_studies(path: Path) -> dict[str, Arrival]:
    """Return the arrival of each study (key): of several the first."""
    found: dict[str, Arrival] = {}
    for one in of_studies(path):
        if one.kind == STUDY:
            found.setdefault(one.study, one)
    return found


@dataclass
class _Read:
    """What this process has read of a list."""

    inode: int = 0
    size: int = 0
    arrivals: list[Arrival] = field(default_factory=list)


_read: dict[Path, _Read] = {}


def _last(descriptor: int, reach: int = 1 << 16) -> list[Line]:
    """Return the last lines: those that a journal may hold too were written last."""
    size = os.fstat(descriptor).st_size
    text = os.pread(descriptor, reach, max(0, size - reach))
    return [line for row in text.splitlines() if (line := _parsed(row))]


def _parsed(row: bytes) -> Line | None:
    try:
        line = json.loads(row.decode(errors="replace"))
    except ValueError:
        return None
    return line if isinstance(line, dict) and "event" in line else None


def _of_study(line: Line) -> Arrival | None:
    """Return what a line tells of a study; None where it tells of none."""
    try:
        at, size = datetime.fromisoformat(line["at"]), int(line.get("bytes") or 0)
    except (ValueError, KeyError, TypeError):
        return None
    if at.tzinfo is None or not line.get("study"):
        return None
    source = str(line.get("source") or "")
    return Arrival(at.astimezone(UTC), str(line["study"]), str(line["event"]), size, source)
