"""The ledger: one line per finished stage, in .lapvqa/ledger.jsonl.

Append-only, so history is never rewritten; each line joins what DVC knows (hashes), what git
knows (code) and what Prefect and MLflow know (runs).
"""

from __future__ import annotations

import fcntl
import json
import os
from typing import Any, TypedDict, cast

from lapvqa.project import Project


class LedgerEntry(TypedDict):
    """One finished run of one stage."""

    stage: str
    started: float
    """Seconds since the epoch."""
    seconds: float
    deps: dict[str, str]
    """Path -> md5 as in dvc.lock (``.dir`` for folders)."""
    outs: dict[str, str]
    """Path -> md5 as in dvc.lock."""
    params: dict[str, Any]
    """Key of params.yaml -> value, as in dvc.lock."""
    git_commit: str | None
    git_dirty: bool | None
    """True if tracked files differed from the commit; None outside git."""
    prefect_flow_run: str | None
    prefect_task_run: str | None
    mlflow_run: str | None


def append(project: Project, entry: LedgerEntry) -> None:
    """Add one entry and flush it to disk; safe with several writers.

    Raises ValueError when keys are missing or unknown.
    """
    wrong = set(entry) ^ set(LedgerEntry.__annotations__)
    if wrong:
        raise ValueError(f"ledger entry: keys missing or unknown: {', '.join(sorted(wrong))}")
    line = json.dumps(entry, sort_keys=True, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    project.ledger.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(project.ledger, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not _ends_with_newline(descriptor):
            # A writer died within its line: close that line so that ours stays readable.
            line = b"\n" + line
        _write_all(descriptor, line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def entries(project: Project) -> list[LedgerEntry]:
    """Return all whole entries, oldest first; see ``damaged_lines`` for the rest."""
    return _read(project)[0]


def damaged_lines(project: Project) -> int:
    """Count lines that are no entry (a writer was killed within its line)."""
    return _read(project)[1]


def _read(project: Project) -> tuple[list[LedgerEntry], int]:
    if not project.ledger.exists():
        return [], 0
    whole: list[LedgerEntry] = []
    damaged = 0
    for line in project.ledger.read_bytes().splitlines():
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError:
            damaged += 1
            continue
        if isinstance(value, dict) and set(value) >= set(LedgerEntry.__annotations__):
            whole.append(cast("LedgerEntry", value))
        else:
            damaged += 1
    return whole, damaged


def _ends_with_newline(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
