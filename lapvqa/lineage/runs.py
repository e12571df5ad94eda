"""What the ledger says of one run of a stage, and the runs it stands on.

Edges go by run, not by bytes: two runs may leave equal bytes (an empty folder always does), and a
consumer names the run that made what it read.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from lapvqa.lineage.ledger import RUN, Entry

_MAY_BE_ID = re.compile(r"\d{4}")
FINISHED, FAILED, INTERRUPTED = "finished", "failed", "interrupted"


@dataclass(frozen=True)
class Run:
    """One run of one stage; what is not known is None or empty."""

    stage: str
    started: float
    """Seconds since the epoch."""
    seconds: float
    """0 where only dvc.lock tells of the run."""
    outcome: str = FINISHED
    deps: dict[str, str] = field(default_factory=dict)
    """Path -> md5 of dvc.lock (``.dir`` for folders), of what other stages made."""
    sources: dict[str, str] = field(default_factory=dict)
    """Path of ``deps`` -> id of the run that made it."""
    outs: dict[str, str] = field(default_factory=dict)
    """Path -> md5 of dvc.lock."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Path of ``outs`` -> bytes; sha256 of a file; rows, schema of Parquet; files of a folder."""
    params: dict[str, Any] = field(default_factory=dict)
    """Key of params.yaml -> value."""
    metrics: dict[str, float] = field(default_factory=dict)
    """``system.metric`` -> value; ends of intervals as ``system.metric.low`` and ``.high``."""
    counts: dict[str, Any] = field(default_factory=dict)
    """The stage's own closing counts."""
    code: str | None = None
    """Digest of an entry of kind ``code``: {"digest", "files": path -> md5}."""
    commit: str | None = None
    dirty: bool | None = None
    """True if tracked files differed from the commit; None outside git."""
    patch: str | None = None
    """Digest of an entry of kind ``patch``: {"digest", "text"}, what differed."""
    environment: dict[str, Any] = field(default_factory=dict)
    """Versions, the lock's digest, host, GPU: ``lapvqa.lineage.environment``."""
    prefect_flow_run: str | None = None
    prefect_task_run: str | None = None
    mlflow_run: str | None = None
    mlflow_pipeline_run: str | None = None
    """The run of MLflow that ``mlflow_run`` is a child of."""

    def payload(self) -> dict[str, Any]:
        """Return it as the ledger keeps it: without what is not known."""
        return {key: value for key, value in asdict(self).items() if value not in (None, {})}

    def state(self) -> tuple[Any, ...]:
        """Return what dvc.lock would say of it: the stage, its inputs, parameters and outputs."""
        return self.stage, self.deps, self.outs, self.params, self.code


def of_entry(entry: Entry) -> Run | None:
    """Return the run that an entry tells of; None if it tells of none, or was erased."""
    if entry.kind != RUN or entry.payload is None:
        return None
    return of_payload(entry.payload)


def of_payload(payload: dict[str, Any]) -> Run:
    """Return the run that a payload tells of; what a later version says besides is left out."""
    known = {one.name for one in fields(Run)}
    return Run(**{name: value for name, value in payload.items() if name in known})


def code_listing(files: dict[str, str]) -> dict[str, Any]:
    """Return what an entry of kind ``code`` says: the files (path -> md5) and their digest."""
    return {"digest": digest(files), "files": files}


def as_asked(name: str) -> str:
    """Return a name that was asked for, quoted, or no part of it where it may hold a raw id."""
    return "this name" if _MAY_BE_ID.search(name) else repr(name)


def digest(value: Any) -> str:
    """Return the sha256 of a text, or of plain values as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
