"""The ledger's entries: one per finished stage, also for stages that a bare `dvc repro` ran."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lapvqa.lineage import ledger
from lapvqa.project import Project
from lapvqa.uptodate.stagefile import locked


@dataclass(frozen=True)
class Commit:
    """The code that runs: None outside git."""

    sha: str | None
    dirty: bool | None


@dataclass(frozen=True)
class Ids:
    """The records that one run of a stage belongs to; None where there is none."""

    prefect_flow_run: str | None = None
    prefect_task_run: str | None = None
    mlflow_run: str | None = None

    def environment(self) -> dict[str, str]:
        """Return them as the variables that ``lapvqa.stage`` keeps in its run file."""
        named = {
            "LAPVQA_ID_PREFECT_FLOW_RUN": self.prefect_flow_run,
            "LAPVQA_ID_PREFECT_TASK_RUN": self.prefect_task_run,
            "LAPVQA_ID_MLFLOW_RUN": self.mlflow_run,
        }
        return {key: value for key, value in named.items() if value}


def read_commit(root: Path) -> Commit:
    """Return git's commit; dirty if tracked files differ, dvc.lock aside: every run writes it."""
    sha = _git(root, "rev-parse", "HEAD")
    changes = _git(
        root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)dvc.lock"
    )
    return Commit(sha=sha, dirty=None if sha is None or changes is None else bool(changes))


def append(
    project: Project, stage: str, *, started: float, seconds: float, commit: Commit, ids: Ids
) -> None:
    """Write the ledger's line for a stage that has just run, with the hashes of dvc.lock."""
    lock = locked(project)[stage]
    ledger.append(
        project,
        ledger.LedgerEntry(
            stage=stage,
            started=started,
            seconds=seconds,
            deps=lock.deps,
            outs=lock.outs,
            params=lock.params,
            git_commit=commit.sha,
            git_dirty=commit.dirty,
            prefect_flow_run=ids.prefect_flow_run,
            prefect_task_run=ids.prefect_task_run,
            mlflow_run=ids.mlflow_run,
        ),
    )


def complete(project: Project, commit: Commit) -> list[str]:
    """Add a line for each stage of dvc.lock whose present state no line tells; return their names.

    These were run by `dvc repro`, or restored from DVC's cache.
    """
    written = ledger.entries(project)
    told = [(entry["stage"], entry["deps"], entry["outs"], entry["params"]) for entry in written]
    added = []
    for name, lock in locked(project).items():
        if (name, lock.deps, lock.outs, lock.params) not in told:
            begun = {entry["started"] for entry in written if entry["stage"] == name}
            facts = _run_facts(project, name, begun)
            append(project, name, commit=commit, **facts)
            added.append(name)
    return added


def _run_facts(project: Project, stage: str, told: set[float]) -> dict[str, Any]:
    """Return when the stage ran and under which ids, as its run file tells.

    ``told``: beginnings that the ledger has. A run file with one of them tells of other outputs:
    the present ones came from DVC's cache, and their own run is not known here.
    """
    path = project.run_file(stage)
    facts = json.loads(path.read_bytes()) if path.exists() else None
    if facts is None or facts["started"] in told:
        return {"started": project.dvc_lock.stat().st_mtime, "seconds": 0.0, "ids": Ids()}
    ids = {key.removeprefix("LAPVQA_ID_").lower(): value for key, value in facts["ids"].items()}
    return {
        "started": facts["started"],
        "seconds": facts["seconds"],
        "ids": Ids(**{key: ids.get(key) for key in Ids.__annotations__}),
    }


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
