"""Is there anything to do, and why? Answered in a moment, without torch, Prefect or DVC.

``check`` compares the project with dvc.lock as `dvc status` does; the manifest of the last run
spares it the parsing and the hashing. A file whose stat changed is hashed, so a mere touch makes
nothing stale. Where that would take long, the answer is "not known", and DVC (which keeps hashes
of its own) decides.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lapvqa.project import Project
from lapvqa.uptodate import input_folders, manifest, stagefile
from lapvqa.uptodate.hashes import Hasher, TooMuchToHashError
from lapvqa.uptodate.stagefile import LockedStage, Stage

_HASH_BUDGET = 2**30  # bytes: about two seconds
_ABSENT = "(absent)"


@dataclass(frozen=True)
class StageState:
    """Whether one stage would run, and why."""

    name: str
    stale: bool
    reasons: list[str]
    known: bool = True
    """False: cannot be told here, DVC decides; ``stale`` is then True."""


@dataclass(frozen=True)
class _Snapshot:
    """The project as it is now."""

    stages: dict[str, Stage]
    locks: dict[str, LockedStage]
    params: dict[str, Any]
    hasher: Hasher
    inputs: dict[str, str]
    """Inventory file -> what changed in the folder it lists; empty text if nothing."""
    begun: frozenset[str]
    """Stages of which a run began and none has ever ended well."""


def nothing_to_do(states: list[StageState]) -> bool:
    """Tell whether every stage is known to be up to date."""
    return bool(states) and not any(state.stale for state in states)


def check(project: Project, *, done: Collection[str] = ()) -> list[StageState]:
    """Compare the project with what the last run left; upstream stages first.

    ``done``: stages that ran a moment ago, which are up to date though they always run. Raises
    ConfigError if params.yaml, local.yaml or dvc.yaml is malformed.
    """
    try:
        now = _snapshot(project)
    except stagefile.UnsupportedStagefileError as error:
        return [_unknown(name, error.message) for name in stagefile.locked(project)]
    except stagefile.CutLockError as error:
        return [_unknown(name, error.message) for name in stagefile.declared(project)]
    states: dict[str, StageState] = {}
    for name in now.stages:
        is_done = name in done and name in now.locks
        states[name] = StageState(name, False, []) if is_done else _state(now, name, states)
    return list(states.values())


def _snapshot(project: Project) -> _Snapshot:
    known = manifest.load(project)
    now = manifest.texts(project)
    same = {name for name, text in now.items() if known and known.texts.get(name) == text}
    locks = known.locks if known and "dvc.lock" in same else stagefile.locked(project)
    if known and same >= {"dvc.yaml", "params.yaml"}:
        stages, params = known.stages, known.params
    else:
        from lapvqa.params import read_yaml

        stages, params = stagefile.declared(project), read_yaml(project.params)
    as_before = known and same >= {"params.yaml", "local.yaml"}
    places = known.places if known and as_before else input_folders.places(project)
    hasher = Hasher(project, known.artefacts if known else {}, budget=_HASH_BUDGET)
    listings = known.listings if known else {}
    changes = {
        input_folders.artefact(project, name): input_folders.change(
            project, name, places=places, known=listings.get(name)
        )
        for name in places.folders
    }
    begun = frozenset(
        name
        for name in stages
        if project.record(name).exists() and not project.run_file(name).exists()
    )
    return _Snapshot(stages, locks, params, hasher, changes, begun)


def _unknown(name: str, reason: str) -> StageState:
    return StageState(name, stale=True, reasons=[f"not known: {reason}"], known=False)


def _state(snapshot: _Snapshot, name: str, done: dict[str, StageState]) -> StageState:
    stage, lock = snapshot.stages[name], snapshot.locks.get(name)
    if lock is None:
        why = "begun, not finished" if name in snapshot.begun else "never run"
        return StageState(name, stale=True, reasons=[why])
    upstream = stagefile.upstream(snapshot.stages, name)
    stale = {other: snapshot.stages[other] for other in upstream if done[other].stale}
    try:
        reasons = [
            *_definition_changes(snapshot, stage, lock),
            *_param_changes(stage, lock, snapshot.params),
            *_input_changes(snapshot, lock, stale),
            *_output_changes(snapshot, lock),
            *(f"upstream {other}" for other in stale if _concerns(snapshot, stale[other], lock)),
        ]
    except TooMuchToHashError:
        return _unknown(name, "too much to hash; DVC decides")
    known = all(done[other].known for other in stale)
    return StageState(name, stale=bool(reasons), reasons=reasons, known=known or not reasons)


def _definition_changes(snapshot: _Snapshot, stage: Stage, lock: LockedStage) -> Iterator[str]:
    lists_inputs = any(_makes(stage, path) for path in snapshot.inputs)
    if stage.always_changed and not lists_inputs:  # what the folders hold is compared instead
        yield "always runs"
    if stage.cmd != lock.cmd:
        yield "dvc.yaml: cmd changed"
    for what, now, before in (("deps", stage.deps, lock.deps), ("outs", stage.outs, lock.outs)):
        for path in sorted(set(now) ^ set(before)):
            yield f"dvc.yaml: {what} {'+' if path in now else '-'} {path}"


def _param_changes(stage: Stage, lock: LockedStage, params: dict[str, Any]) -> Iterator[str]:
    for key in stage.params:
        try:
            now = stagefile.lookup(params, key)
        except KeyError:
            now = _ABSENT
        yield from _value_changes(f"params.{key}", lock.params.get(key, _ABSENT), now)


def _value_changes(key: str, before: Any, now: Any) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for name in sorted(before.keys() | now.keys()):
            yield from _value_changes(
                f"{key}.{name}", before.get(name, _ABSENT), now.get(name, _ABSENT)
            )
    elif before != now:
        yield f"{key} {before} -> {now}"


def _input_changes(
    snapshot: _Snapshot, lock: LockedStage, stale: dict[str, Stage]
) -> Iterator[str]:
    for path, md5 in lock.deps.items():
        listed = snapshot.inputs.get(path)
        if listed:
            yield f"input {path}: {listed}"
        elif listed is None and any(_makes(stage, path) for stage in stale.values()):
            continue  # it will be made anew; said as "upstream"
        else:
            yield from _differences(snapshot.hasher, path, md5)
    for path, listed in snapshot.inputs.items():
        if listed and any(stagefile.overlap(path, out) for out in lock.outs):
            yield f"folder {Path(path).stem}: {listed}"


def _differences(hasher: Hasher, path: str, md5: str) -> Iterator[str]:
    kind = "code" if path.startswith("lapvqa") else "input"
    now = hasher.md5(path)
    if now is None:
        yield f"{kind} {path} missing"
    elif now != md5:
        files = hasher.changed_files(path) or [""]
        yield from (f"{kind} {path}{'/' if name else ''}{name} changed" for name in files)


def _output_changes(snapshot: _Snapshot, lock: LockedStage) -> Iterator[str]:
    for path, md5 in lock.outs.items():
        now = snapshot.hasher.md5(path)
        if now != md5:
            yield f"output {path} {'missing' if now is None else 'changed'}"


def _concerns(snapshot: _Snapshot, source: Stage, lock: LockedStage) -> bool:
    """Tell whether a stale stage may change this one's input.

    What the inventory stage will list is known beforehand, so it concerns nobody by itself.
    """
    return any(_makes(source, path) and path not in snapshot.inputs for path in lock.deps)


def _makes(stage: Stage, path: str) -> bool:
    return any(stagefile.overlap(path, out) for out in stage.outs)
