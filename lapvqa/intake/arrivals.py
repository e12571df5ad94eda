"""The list of what has arrived: .lapvqa/arrivals.jsonl, a line per event, only ever added to.

    {"at": "2026-11-29T10:15:03+00:00", "event": "study", "source": "WARD", "study": "6f1d...",
     "files": 2, "bytes": 24117250, "id": "...", "accession": ["91c4..."]}

``event`` is ``study`` (new), ``report`` (new) or ``amended`` (more or other files of a study that
was complete, or a report in place of an earlier one). ``study`` and ``accession`` are keyed hashes
(``lapvqa.identity``); nothing else in a line names anybody. A report whose study has not arrived
has ``study`` null. Of a file with several reports the first line has its files and bytes.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

STUDY, REPORT, AMENDED = "study", "report", "amended"
Event = dict[str, Any]
Worth = tuple[bool, int, int, int]
"""Of a report, the lower the better: as ingest chooses among several of one study."""
_STATUS = {"corrected": 0, "final": 1}


def now() -> str:
    """Return the time as events have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def append(path: Path, events: Iterable[Event]) -> None:
    """Add events that are not there yet by their ``id``, flushed to disk; safe with several."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        known = {event.get("id") for event in _last(file.fileno())}
        lines = [json.dumps(event, sort_keys=True) for event in events if event["id"] not in known]
        size = os.fstat(file.fileno()).st_size
        torn = size and os.pread(file.fileno(), 1, size - 1) != b"\n"
        text = "".join(f"{line}\n" for line in lines)
        file.write((b"\n" if torn and text else b"") + text.encode())
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> Iterator[Event]:
    """Yield the events, oldest first; torn lines are passed over."""
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from filter(None, map(_parsed, file))


def _last(descriptor: int, reach: int = 1 << 16) -> list[Event]:
    """Return the last events: those that a journal may hold too were written last."""
    size = os.fstat(descriptor).st_size
    text = os.pread(descriptor, reach, max(0, size - reach)).decode(errors="replace")
    return [event for line in text.splitlines() if (event := _parsed(line))]


def _parsed(line: str) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


@dataclass
class Register:
    """What the list says of accession numbers and reports: who has which, by keyed hashes."""

    studies: dict[str, str | None] = field(default_factory=dict)
    """Study of each accession key; None if several have it."""
    reports: dict[str, Event] = field(default_factory=dict)
    """The event of the report that counts, by study or accession key."""

    @classmethod
    def load(cls, path: Path) -> Register:
        """Return the register of a list of arrivals."""
        register = cls()
        for event in read(path):
            register.add(event)
        return register

    def add(self, event: Event) -> None:
        """Take one event into account."""
        study = event.get("study")
        for number in event.get("accession") or ():
            if study is not None and "report" not in event:
                self.studies[number] = study if self.studies.get(number, study) == study else None
                if number in self.reports:  # it came before its study
                    self.reports.setdefault(study, self.reports[number])
        if "report" in event:
            for key in (study, *(event.get("accession") or ())):
                if key:
                    self.reports[key] = event

    def study_of(self, accessions: Iterable[str]) -> str | None:
        """Return the only study with one of these accession keys; None if there is none."""
        found = {self.studies[key] for key in accessions if key in self.studies}
        return found.pop() if len(found) == 1 else None

    def report_of(self, keys: Iterable[str | None]) -> Event | None:
        """Return the event of the report that is known under one of these keys."""
        return next((self.reports[key] for key in keys if key in self.reports), None)


def worth(event: Event) -> Worth:
    """Return how good a report is, the lower the better: final, source, latest, corrected."""
    written = int((event.get("written") or "0").ljust(14, "0"))
    status = event.get("status") or ""
    return status == "preliminary", event["rank"], -written, _STATUS.get(status, 2)
