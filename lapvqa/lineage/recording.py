"""Write into the ledger what ran: dvc.lock joined with the run that made it.

Called after each stage, and once more at a run's end for what a bare `dvc repro`, or a run that was
killed, left untold.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from lapvqa import storage
from lapvqa.identity import key_id
from lapvqa.lineage import contents, ledger, members, merkle, runs
from lapvqa.lineage.ledger import CODE, PATCH, RUN, TRAINED_ON, Draft, Entry
from lapvqa.lineage.row_numbers import PATIENT, STUDY, RowNumbers, packed
from lapvqa.lineage.runs import Run, code_listing, digest
from lapvqa.project import Project
from lapvqa.schemas import MEMBERS, MEMBERS_FILE
from lapvqa.uptodate import hashes
from lapvqa.uptodate.stagefile import LockedStage, any_overlap, locked

_SHA256_AT_MOST = 16 << 30
_PATCH_AT_MOST = 1 << 20
_CODE = ("lapvqa", "tasks", "flows", "params", "dvc.yaml", "params.yaml", "requirements")


@dataclass(frozen=True)
class Commit:
    """The code that runs: None outside git; ``patch`` is what differs from the commit."""

    sha: str | None
    dirty: bool | None
    patch: str = ""


def read_commit(root: Path) -> Commit:
    """Return git's commit, and what differs from it in tracked files.

    dvc.lock and the ledger do not count: every run writes them.
    """
    sha = _git(root, "rev-parse", "HEAD")
    apart = ("--", ".", ":(exclude)dvc.lock", ":(exclude)ledger")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no", *apart)
    if sha is None or changes is None:
        return Commit(sha, None)
    patch = _git(root, "diff", "--no-ext-diff", "HEAD", "--", *_CODE) if changes else ""
    return Commit(sha, bool(changes), (patch or "")[:_PATCH_AT_MOST])


def record(
    project: Project, run: Run, commit: Commit, locks: dict[str, LockedStage] | None = None
) -> str:
    """Write the entry of a stage that has just run, with the hashes of dvc.lock; return its id.

    ``run`` says what dvc.lock does not: when it ran, under which ids, its metrics. ``locks``:
    dvc.lock as it was read while nobody wrote it, as where stages run side by side. ConfigError,
    and nothing is told, of a training where the lists of keys were lost.
    """
    locks = locked(project) if locks is None else locks
    lock = locks[run.stage]
    trained = [path for path in lock.outs if Path(path).name == MEMBERS_FILE]
    if trained:  # before anything is told: the next run makes up for all of it
        members.require(project)
    deps, code = _divided(lock, locks)
    run = replace(run, deps=deps, outs=lock.outs, params=lock.params)
    run_id = write(project, run, code, commit, locks)
    for path in trained:
        ledger.append(project, TRAINED_ON, _trained_on(project, path, run_id))
    return run_id


def write(
    project: Project,
    run: Run,
    code: dict[str, Any],
    commit: Commit,
    locks: dict[str, LockedStage],
) -> str:
    """Write the entry of a run whose inputs, outputs and parameters are known; return its id.

    Added are what its files hold, the code and what differs from the commit, and the runs that
    made its inputs.
    """
    run = replace(
        run, code=code["digest"],
        files={path: _file_facts(project, path) for path in run.outs},
        commit=commit.sha, dirty=commit.dirty,
        patch=digest(commit.patch) if commit.patch else None,
    )  # fmt: skip

    def drafts(before: list[Entry]) -> list[Draft]:
        made = _made_by(run.deps, locks, _latest(locks, before))
        sourced = replace(run, sources={**made, **_gone_on_from(run, before)})
        return [*_unless_known(before, code, commit), Draft(RUN, sourced.payload())]

    return ledger.extend(project, drafts)[-1]


def record_failure(project: Project, run: Run, commit: Commit) -> str:
    """Write the entry of a stage that failed or was interrupted: no outputs, dvc.lock unchanged."""
    run = replace(run, commit=commit.sha, dirty=commit.dirty)
    return ledger.append(project, RUN, run.payload())


def told(project: Project) -> list[Run]:
    """Return all runs that the ledger tells of, oldest first."""
    return [run for entry in ledger.entries(project) if (run := runs.of_entry(entry))]


def untold(project: Project) -> list[LockedStage]:
    """Return the stages whose present state in dvc.lock no entry tells, upstream first.

    These were run by `dvc repro`, or restored from DVC's cache, or their run was killed.
    """
    locks = locked(project)
    states = [run.state() for run in told(project)]
    return [lock for lock in upstream_first(locks) if present_state(lock, locks) not in states]


def present(project: Project) -> dict[str, Run]:
    """Return of each stage the run that computed what dvc.lock names, as far as it is known.

    A stage's own record is of the last run that computed, and DVC may have restored another's
    outputs since: so the ledger is asked first, and the record counts while no entry tells of it.
    """
    locks, known = locked(project), told(project)
    states = {name: present_state(lock, locks) for name, lock in locks.items()}
    kept = {name: own_record(project, name, known) for name in locks}
    own = {
        name: Run(name, facts["started"], facts["seconds"], counts=facts.get("counts", {}))
        for name, facts in kept.items()
        if facts
    }
    computed = (run for run in known if run.seconds)
    return own | {run.stage: run for run in computed if run.state() == states.get(run.stage)}


def own_record(project: Project, stage: str, known: Iterable[Run] = ()) -> dict[str, Any]:
    """Return what a stage's own last run kept: started, seconds, counts, environment, ids.

    Empty if there is none, or if it is one of the ``known`` runs.
    """
    try:
        facts: dict[str, Any] = json.loads(project.run_file(stage).read_bytes())
    except (OSError, ValueError):  # not there, another user's, or just being written
        return {}
    is_told = any((run.stage, run.started) == (stage, facts["started"]) for run in known)
    return {} if is_told else facts


def upstream_first(locks: dict[str, LockedStage]) -> list[LockedStage]:
    """Return the stages of dvc.lock, each after those whose outputs it read."""
    above = {
        name: {
            other.name
            for other in locks.values()
            if other.name != name and any_overlap(other.outs, lock.deps)
        }
        for name, lock in locks.items()
    }
    return [locks[name] for name in TopologicalSorter(above).static_order()]


def from_lock(
    lock: LockedStage, locks: dict[str, LockedStage], makers: dict[str, str]
) -> tuple[Run, dict[str, Any]]:
    """Return a run of which dvc.lock alone tells, and its code; ``makers``: stage -> run id."""
    data, code = _divided(lock, locks)
    run = Run(
        lock.name, 0.0, 0.0, deps=data, sources=_made_by(data, locks, makers), outs=lock.outs,
        params=lock.params, code=code["digest"],
    )  # fmt: skip
    return run, code


def is_data(path: str, locks: Iterable[LockedStage]) -> bool:
    """Tell whether a stage made ``path``; all other dependencies are code."""
    return any_overlap((path,), (out for lock in locks for out in lock.outs))


def present_state(lock: LockedStage, locks: dict[str, LockedStage]) -> tuple[Any, ...]:
    """Return what ``Run.state`` returns of the run that left a stage as dvc.lock has it."""
    data, code = _divided(lock, locks)
    return lock.name, data, lock.outs, lock.params, code["digest"]


def _divided(
    lock: LockedStage, locks: dict[str, LockedStage]
) -> tuple[dict[str, str], dict[str, Any]]:
    """Return a stage's data (path -> md5), and its code as one listing with a digest."""
    data = {path: md5 for path, md5 in lock.deps.items() if is_data(path, locks.values())}
    files = {path: md5 for path, md5 in lock.deps.items() if path not in data}
    return data, code_listing(files)


def _unless_known(before: list[Entry], code: dict[str, Any], commit: Commit) -> list[Draft]:
    """Return the listing of the code and the patch, each once in the ledger."""
    wanted = [Draft(CODE, code)]
    if commit.patch:
        wanted.append(Draft(PATCH, {"digest": digest(commit.patch), "text": commit.patch}))
    known = {
        entry.payload["digest"] for entry in before if entry.kind in (CODE, PATCH) and entry.payload
    }
    return [draft for draft in wanted if draft.payload["digest"] not in known]


def _latest(locks: dict[str, LockedStage], before: list[Entry]) -> dict[str, str]:
    """Return stage -> id of the latest run that left it as dvc.lock has it now."""
    latest: dict[str, str] = {}
    states = {name: present_state(lock, locks) for name, lock in locks.items()}
    for entry in before:
        made = runs.of_entry(entry)
        if made is not None and made.state() == states.get(made.stage):
            latest[made.stage] = entry.id
    return latest


def _made_by(
    paths: Iterable[str], locks: dict[str, LockedStage], makers: dict[str, str]
) -> dict[str, str]:
    """Return which run made each path, of the ``makers`` (stage -> run id)."""
    return {
        path: makers[name]
        for path in paths
        for name, lock in locks.items()
        if name in makers and any_overlap((path,), lock.outs)
    }


def _gone_on_from(run: Run, before: list[Entry]) -> dict[str, str]:
    """Return path and run of the weights that a training went on from; they are no dependency."""
    digest = (run.params.get("pretrain") or {}).get("continue_from")
    for entry in reversed(before) if digest else ():
        made = runs.of_entry(entry)
        for path, facts in made.files.items() if made else ():
            if facts.get("sha256") == digest:
                return {path: entry.id}
    return {}


def _file_facts(project: Project, name: str) -> dict[str, Any]:
    """Return bytes of an output; sha256 of a file, rows of a Parquet file, files of a folder."""
    path = project.root / name
    stats = hashes.stat_artefact(path, [])
    if stats is None:
        return {}
    facts: dict[str, Any] = {"bytes": sum(size for size, _, _ in stats.values())}
    if path.is_dir():
        return facts | {"files": len(stats)}
    if facts["bytes"] <= _SHA256_AT_MOST:
        facts["sha256"] = storage.sha256_file(path)
    if path.suffix == ".parquet":
        facts |= _table_facts(path)
    if path.name == MEMBERS_FILE:
        facts |= _root_of(project, path)
    return facts | contents.facts(path)


def _table_facts(path: Path) -> dict[str, Any]:
    import pyarrow.parquet as pq  # here: most of what uses this module has nothing to read

    try:
        footer = pq.ParquetFile(path)
    except (ValueError, OSError):
        return {}
    columns = {field.name: str(field.type) for field in footer.schema_arrow}
    return {"rows": footer.metadata.num_rows, "schema": digest(columns)}


def _root_of(project: Project, path: Path) -> dict[str, Any]:
    """Return the number of a training's patients and their Merkle root; nothing without the key.

    The root names nobody, and whoever has the key can prove by it that somebody is not among them.
    """
    key = members.project_key(project)
    if key is None:
        return {}
    table = storage.read_table(path, MEMBERS, made_by="pretrain")
    patients = {one for one in table["patient_key"].to_pylist() if one}
    tree = merkle.leaves(merkle.member_digest(key, one) for one in patients)
    told = {"patients": len(patients), "root": merkle.root(tree), "key": key_id(key)}
    return {"members": told}


def _trained_on(project: Project, path: str, run_id: str) -> dict[str, Any]:
    """Return whom a training sampled, by row number: role -> patients, studies by times sampled."""
    import pyarrow.compute as pc

    table = storage.read_table(project.root / path, MEMBERS, made_by="pretrain")
    patients, studies = RowNumbers(project, PATIENT), RowNumbers(project, STUDY)
    roles = {}
    for role in table["role"].unique().to_pylist():
        rows = table.filter(pc.field("role") == role)
        roles[role] = {
            "patients": packed(patients.number(rows["patient_key"].unique().to_pylist())),
            "studies": {
                str(times): packed(
                    studies.number(rows.filter(pc.field("times") == times)["study_key"].to_pylist())
                )
                for times in sorted(rows["times"].unique().to_pylist())
            },
        }
    return {"run": run_id, "path": path, "roles": roles}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
