"""What the tasks of a run tell the ledger, and what they tell a stage of its records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lapvqa import storage
from lapvqa.lineage import ledger, recording
from lapvqa.lineage.recording import Commit
from lapvqa.lineage.runs import FINISHED, Run, of_entry
from lapvqa.project import Project
from lapvqa.uptodate.stagefile import LockedStage, locked
from tasks import results


@dataclass(frozen=True)
class Ids:
    """The records that one run of a stage belongs to; None where there is none."""

    prefect_flow_run: str | None = None
    prefect_task_run: str | None = None
    mlflow_run: str | None = None
    mlflow_pipeline_run: str | None = None


TOKEN = "LAPVQA_ID_TOKEN"
"""The variable whose value ``lapvqa.stage`` keeps in its run file."""


def keep_ids(project: Project, stage: str, token: str, ids: Ids) -> None:
    """Keep to which records the stage's run with this ``token`` belongs, in case we are killed."""
    storage.write_json(_ids_file(project, stage), {"token": token, **asdict(ids)})


def _kept_ids(project: Project, stage: str, token: str | None) -> Ids:
    path = _ids_file(project, stage)
    facts = json.loads(path.read_bytes()) if path.exists() else {}
    is_same = token is not None and facts.pop("token", None) == token
    return Ids(**facts) if is_same else Ids()


def _ids_file(project: Project, stage: str) -> Path:
    return project.state / "ids" / f"{stage}.json"


def tell(
    project: Project, stage: str, locks: dict[str, LockedStage], *,
    began: float, seconds: float, commit: Commit, ids: Ids,
) -> str:  # fmt: skip
    """Write the entry of a stage that has just run; return its id.

    ``locks``: dvc.lock as it was read while nobody wrote it. ``began`` and ``seconds`` hold where
    the stage itself kept no clock.
    """
    kept = recording.own_record(project, stage)
    if kept.get("started", 0.0) < began:
        kept = {}
    known = {"started": began, "seconds": seconds, **kept}
    return _record(project, locks, stage, known, commit, ids)


def last_times(project: Project) -> dict[str, float]:
    """Return how many seconds each stage's last finished run took, as far as it was measured."""
    known = map(of_entry, ledger.entries(project))
    return {
        run.stage: run.seconds
        for run in known
        if run is not None and run.outcome == FINISHED and run.seconds
    }


def tell_failure(
    project: Project, stage: str, *, began: float, outcome: str, params: dict[str, Any],
    commit: Commit, ids: Ids, seconds: float,
) -> str:  # fmt: skip
    """Write the entry of a stage that failed or was interrupted."""
    run = Run(stage, began, seconds, outcome, params=params, **asdict(ids))
    return recording.record_failure(project, run, commit)


def complete(project: Project, commit: Commit) -> list[str]:
    """Write an entry for each stage whose present state none tells; return their names.

    A run file that an entry tells of already says nothing of the present outputs: these came from
    DVC's cache, and their own run is not known here.
    """
    told, added = recording.told(project), []
    for lock in recording.untold(project):
        kept = recording.own_record(project, lock.name, told) or {
            "started": project.dvc_lock.stat().st_mtime, "seconds": 0.0,
        }  # fmt: skip
        ids = _kept_ids(project, lock.name, kept.get("ids", {}).get(TOKEN))
        _record(project, locked(project), lock.name, kept, commit, ids)
        added.append(lock.name)
    return added


def _record(
    project: Project, locks: dict[str, LockedStage], stage: str, kept: Mapping[str, Any],
    commit: Commit, ids: Ids,
) -> str:  # fmt: skip
    outs = tuple(locks[stage].outs)
    run = Run(
        stage, kept["started"], kept["seconds"],
        counts=kept.get("counts", {}), environment=kept.get("environment", {}),
        metrics=results.metric_values(project.root, outs), **asdict(ids),
    )  # fmt: skip
    return recording.record(project, run, commit, locks)
