"""What is at work in a project now, seen without touching its locks."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lapvqa.project import Project

_TAIL_BYTES = 65536


@dataclass(frozen=True)
class Progress:
    """How far a running stage is."""

    stage: str
    started: float
    done: int | None = None
    total: int | None = None
    unit: str = ""
    rate: float | None = None
    eta_s: float | None = None
    note: str = ""


def holder(lock: Path) -> str:
    """Return who holds a lock file ("process 12 on host, since ..."); empty if nobody does.

    Asks the kernel's list of locks: trying the lock, however shortly, could make a run that
    starts at this moment believe that another one is at work.
    """
    try:
        inode = lock.stat().st_ino
        locks = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return ""
    if not any(line.split()[5].endswith(f":{inode}") for line in locks.splitlines()):
        return ""
    return lock.read_text(encoding="utf-8", errors="replace").strip() or "another process"


def stages_at_work(project: Project) -> list[Progress]:
    """Return the stages whose process is running now."""
    locks = sorted((project.state / "work").glob("*.lock"))
    return [progress(project, lock.stem) for lock in locks if holder(lock)]


def progress(project: Project, stage: str) -> Progress:
    """Return how far the last run of a stage came, from its record."""
    started, last = time.time(), None
    for entry in _entries(project.record(stage)):
        if entry["kind"] == "start":
            started = entry["t"]
        elif entry["kind"] == "progress":
            last = entry
    if last is None:
        return Progress(stage, started)
    eta = last["eta_s"]
    if eta is not None:
        eta = max(eta - (time.time() - last["t"]), 0.0)
    return Progress(
        stage, started, last["done"], last["total"], last["unit"], last["rate"], eta, last["note"]
    )


def _entries(path: Path) -> list[dict[str, Any]]:
    """Return the first entry and those near the end; a line being written is left out."""
    try:
        with path.open("rb") as handle:
            first = handle.readline()
            end = handle.seek(0, 2)
            handle.seek(max(len(first), end - _TAIL_BYTES))
            lines = [first, *handle.read().splitlines()]
    except FileNotFoundError:
        return []
    entries = []
    for line in lines:
        try:
            entries.append(json.loads(line))
        except ValueError:  # cut by the seek, or not yet whole
            continue
    return entries
