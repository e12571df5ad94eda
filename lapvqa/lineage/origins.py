"""The run that made an artefact: dvc.lock joined with the ledger by stage and md5."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from lapvqa.lineage import recording
from lapvqa.lineage.runs import Run
from lapvqa.project import Project
from lapvqa.uptodate import stagefile
from lapvqa.uptodate.stagefile import LockedStage

BY_RUN = "lapvqa run"
OUTSIDE = "outside lapvqa run"
"""By a bare `dvc repro`: there is a stage's own record, but no Prefect or MLflow run."""
ELSEWHERE = "on another machine"
"""Only dvc.lock tells of it: the bytes came with git and `dvc pull`."""


@dataclass(frozen=True)
class Origin:
    """One run of one stage."""

    stage: str
    made: str
    """BY_RUN, OUTSIDE or ELSEWHERE."""
    deps: dict[str, str]
    outs: dict[str, str]
    params: dict[str, Any]
    started: float | None = None
    """Seconds since the epoch."""
    seconds: float | None = None
    git_commit: str | None = None
    git_dirty: bool | None = None
    prefect_flow_run: str | None = None
    prefect_task_run: str | None = None
    mlflow_run: str | None = None


class Origins:
    """All runs that this project knows of."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self.locks = stagefile.locked(project)
        self.entries = recording.told(project)

    def of(self, path: str, md5: str, *, before: float | None = None) -> Origin | None:
        """Return the run that made ``path`` with this md5; None for what no stage makes.

        A file within an output folder is told by its folder, as of the time ``before``.
        """
        for lock in self.locks.values():
            if lock.outs.get(path) == md5:
                return self.of_lock(lock)
        for entry in reversed(self.entries):
            if entry.outs.get(path) == md5:
                return of_entry(entry)
        return self._of_folder(path, before)

    def of_lock(self, lock: LockedStage) -> Origin:
        """Return the run behind an entry of dvc.lock."""
        same = [
            entry for entry in self.entries if entry.stage == lock.name and entry.outs == lock.outs
        ]
        # The same bytes may have been made or restored several times: prefer a run from the
        # same inputs, then one that computed (has records), then the latest.
        if same:
            return of_entry(max(same, key=lambda entry: _preference(entry, lock)))
        return self._from_run_file(lock)

    def _of_folder(self, path: str, before: float | None) -> Origin | None:
        for lock in self.locks.values():
            if not any(path.startswith(f"{out}/") for out in lock.outs):
                continue
            origin = self.of_lock(lock)
            if before is None or origin.started is None or origin.started <= before:
                return origin
        for entry in reversed(self.entries):
            inside = any(path.startswith(f"{out}/") for out in entry.outs)
            if inside and (before is None or entry.started <= before):
                return of_entry(entry)
        return None

    def _from_run_file(self, lock: LockedStage) -> Origin:
        unseen = Origin(lock.name, ELSEWHERE, lock.deps, lock.outs, lock.params)
        try:
            facts = json.loads(self._project.run_file(lock.name).read_bytes())
        except (FileNotFoundError, ValueError):
            return unseen
        started, seconds = facts.get("started"), facts.get("seconds")
        return replace(unseen, made=OUTSIDE, started=started, seconds=seconds)


def of_entry(run: Run) -> Origin:
    """Return the run that a ledger entry tells of."""
    recorded = run.prefect_flow_run or run.prefect_task_run or run.mlflow_run
    return Origin(
        run.stage, BY_RUN if recorded else OUTSIDE, run.deps, run.outs, run.params,
        run.started, run.seconds, run.commit, run.dirty,
        run.prefect_flow_run, run.prefect_task_run, run.mlflow_run,
    )  # fmt: skip


def _preference(run: Run, lock: LockedStage) -> tuple[bool, bool, float]:
    return run.deps.items() <= lock.deps.items(), run.mlflow_run is not None, run.started
