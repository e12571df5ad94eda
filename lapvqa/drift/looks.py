"""Looks for drift in the ledger: ``what`` says that there was one, or why there was none."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from lapvqa.lineage import ledger
from lapvqa.lineage.ledger import DRIFT, Entry
from lapvqa.project import Project

LOOK, NO_LOOK = "look", "no look"


def last_look(entries: Iterable[Entry]) -> datetime | None:
    """Return when somebody last looked, or was asked to and could not; None: never."""
    times = [said["at"] for said in _said(entries, LOOK, NO_LOOK)]
    return datetime.fromtimestamp(times[-1], UTC) if times else None


def last_spent(entries: Iterable[Entry], since: float) -> float:
    """Return when error was last spent, at a look with a level; ``since`` if never after it."""
    spent = [float(said["at"]) for said in _said(entries, LOOK) if said["level"] > 0]
    return max([since, *spent])


def refuse(project: Project, why: str) -> None:
    """Note that a look was asked for and could not be taken; later arrivals ask again."""
    ledger.append(project, DRIFT, {"what": NO_LOOK, "why": why, "at": time.time()})


def _said(entries: Iterable[Entry], *what: str) -> list[dict[str, Any]]:
    told = (entry.payload for entry in entries if entry.kind == DRIFT)
    return [said for said in told if said and said["what"] in what]
