"""Records of stages on disk until MLflow has them: nothing is lost while it is down.

.lapvqa/spool/<run>/<stage>/, or _pipeline/ for the pipeline itself: record.json, what the stage
wrote (lines.jsonl), the machine's load meanwhile (load.jsonl), how far MLflow has both
(shipped.json), and the stage's pictures, if it leaves any (pictures/).
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lapvqa import storage

RUNNING, FINISHED, FAILED, KILLED = "RUNNING", "FINISHED", "FAILED", "KILLED"
DISCARDED = "DISCARDED"  # ours: nothing had to be done, so MLflow shall not keep the run
LINES, LOAD, _SHIPPED = "lines.jsonl", "load.jsonl", "shipped.json"
PICTURES = "pictures"
FLOW_NAME = "prefect.flow_run_name"
"""A tag of each stage and its pipeline: what Prefect calls the run, and so MLflow does."""


@dataclass
class RunRecord:
    """One run of a stage (or, with an empty ``stage``, of the pipeline) as MLflow shall know it."""

    run: str
    """Our own id of the pipeline run; a tag of the MLflow runs."""
    stage: str
    started: float
    status: str = RUNNING
    ended: float | None = None
    params: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    """Path -> DVC's md5, which covers every byte of the file or folder."""
    metrics: dict[str, float] = field(default_factory=dict)

    def folder(self, spool: Path) -> Path:
        """Return where it waits."""
        return spool / self.run / (self.stage.replace("@", "-") or "_pipeline")


def keep(
    record: RunRecord, spool: Path, *, lines: Path | None = None, pictures: Path | None = None
) -> None:
    """Write a record; beside it the stage's JSON lines, if they are of the same run, and pictures.

    ``pictures``: a folder of files.
    """
    folder = record.folder(spool)
    if pictures is not None:
        for file in sorted(pictures.iterdir()):
            storage.write_bytes(folder / PICTURES / file.name, file.read_bytes())
    if lines is not None and began_after(lines, record.started):
        with storage.atomic_path(folder / LINES) as copy:
            shutil.copyfile(lines, copy)
    storage.write_json(folder / "record.json", asdict(record))


def drop(record: RunRecord, spool: Path) -> None:
    """Forget a record that MLflow has; the run's folder goes with its last record."""
    folder = record.folder(spool)
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent.exists() and not any(folder.parent.iterdir()):
        folder.parent.rmdir()


def waiting(spool: Path) -> list[RunRecord]:
    """Return the records that wait, each pipeline before its stages."""
    records = [RunRecord(**json.loads(path.read_bytes())) for path in spool.glob("*/*/record.json")]
    return sorted(records, key=lambda record: (record.run, bool(record.stage), record.started))


def waits(run: str, spool: Path) -> RunRecord | None:
    """Return the record of the pipeline run ``run``, if it waits."""
    path = RunRecord(run=run, stage="", started=0.0).folder(spool) / "record.json"
    return RunRecord(**json.loads(path.read_bytes())) if path.exists() else None


def began_after(lines: Path, started: float) -> bool:
    """Tell whether a stage's JSON lines belong to a run that began at ``started`` or later."""
    began = _began(lines)
    return began is not None and began >= started - 0.001


def _began(lines: Path) -> float | None:
    """Return when the first of the JSON lines was written; None if there is none yet."""
    if not lines.exists():
        return None
    with lines.open("rb") as handle:
        first = handle.readline()
    try:
        return float(json.loads(first)["t"]) if first.endswith(b"\n") else None
    except ValueError:  # damaged by a full disk or a power cut
        return None


class Mark:
    """How far a run of MLflow has the JSON lines of a record: bytes, by file and its first time.

    Another run (the first was deleted, the server has another store) and a file that was begun
    anew both start at 0.
    """

    def __init__(self, folder: Path, run_id: str) -> None:
        self._path = folder / _SHIPPED
        known = json.loads(self._path.read_bytes()) if self._path.exists() else {}
        self._state = known if known.get("mlflow_run") == run_id else {"mlflow_run": run_id}

    def get(self, lines: Path, *, name: str) -> int:
        """Return how many bytes of ``lines`` are shipped."""
        return int(self._state.get(f"{name} {_began(lines)}", 0))

    def set(self, lines: Path, offset: int, *, name: str) -> None:
        """Keep that ``offset`` bytes are shipped, unless the record has been dropped meanwhile."""
        self._state[f"{name} {_began(lines)}"] = offset
        if self._path.parent.exists():
            storage.write_json(self._path, self._state)
