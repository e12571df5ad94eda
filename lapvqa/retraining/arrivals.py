"""What has come into the archive: .lapvqa/arrivals.jsonl, which the intake writes.

A line per event; a study that comes again under its key is one study, whatever the sender repeats.
Its images and its report are told by events of their own.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lapvqa.project import Project


@dataclass(frozen=True)
class Arrived:
    """New studies and bytes of a stretch of time."""

    studies: int = 0
    bytes: int = 0
    busy_since: datetime | None = None
    """Since when there was no gap that would count as quiet."""
    last: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        at = {name: getattr(self, name) for name in ("busy_since", "last")}
        return {**asdict(self), **{name: time and time.isoformat() for name, time in at.items()}}


@dataclass(frozen=True)
class Event:
    """One arrival."""

    at: datetime
    study: str
    kind: str
    bytes: int


def since(project: Project, before: datetime | None, *, quiet: timedelta) -> Arrived:
    """Return what arrived after ``before``; all that is known if it is None.

    A gap of ``quiet`` ends a busy stretch.
    """
    events = _events(project.arrivals)
    first = 0 if before is None else bisect_right(events, before, key=lambda event: event.at)
    return add_up(events[first:], quiet=quiet)


def add_up(events: Sequence[Event], *, quiet: timedelta) -> Arrived:
    """Return what events in the order of their times come to; repeats count once, as the last."""
    if not events:
        return Arrived()
    sizes = {(event.study, event.kind): event.bytes for event in events}
    studies = len({study for study, _ in sizes})
    busy_since = events[-1].at
    for event in reversed(events):
        if busy_since - event.at > quiet:
            break
        busy_since = event.at
    return Arrived(studies, sum(sizes.values()), busy_since, events[-1].at)


@dataclass
class _Read:
    """What this process has read of a file."""

    inode: int = 0
    size: int = 0
    events: list[Event] = field(default_factory=list)


_read: dict[Path, _Read] = {}


def _events(path: Path) -> list[Event]:
    """Return the whole lines in the order of their times; what is known is not parsed again."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        stat = os.fstat(file.fileno())
        known = _read.get(path)
        if known is None or known.inode != stat.st_ino or known.size > stat.st_size:
            known = _read[path] = _Read(stat.st_ino)
        file.seek(known.size)
        whole, end, _ = file.read().rpartition(b"\n")
    for line in whole.splitlines():
        event = _event(line)
        if event is not None:
            insort(known.events, event, key=lambda event: event.at)
    known.size += len(whole) + len(end)
    return known.events


def _event(line: bytes) -> Event | None:
    """Return what a line tells; None where it tells of no study."""
    try:
        told = json.loads(line)
        at, size = datetime.fromisoformat(told["at"]), int(told.get("bytes") or 0)
    except (ValueError, KeyError, TypeError):
        return None
    if at.tzinfo is None or not told.get("study"):
        return None
    return Event(at.astimezone(UTC), str(told["study"]), str(told.get("event")), size)
