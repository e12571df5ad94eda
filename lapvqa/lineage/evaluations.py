"""Write into the ledger that `lapvqa evaluate --encoder` judged an encoder from elsewhere.

No stage of dvc.yaml does, so what stands in dvc.lock for a stage is found here: what the task's own
stage reads but the pipeline's model, its code, its parameters.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lapvqa.lineage import recording
from lapvqa.lineage.origins import EVALUATION
from lapvqa.lineage.recording import Commit
from lapvqa.lineage.runs import Run, code_listing
from lapvqa.project import Project
from lapvqa.uptodate import stagefile
from lapvqa.uptodate.hashes import Hasher
from lapvqa.uptodate.stagefile import LockedStage

_MODELS = "models/"


def record(
    project: Project, run: Run, *, name: str, task: str, encoder: str, commit: Commit
) -> str:
    """Write the entry of one judgement; ``encoder``: digest of its weights. Return its id.

    ``run`` says when it ran, its counts, metrics and environment; its outputs are on disk.
    """
    locks = stagefile.locked(project)
    folder = project.evaluations_dir(name).relative_to(project.root).as_posix()
    hasher = Hasher(project, {})
    outs = {}
    for path in sorted((project.evaluations_dir(name) / task).iterdir()):
        relative = f"{folder}/{task}/{path.name}"
        outs[relative] = hasher.md5(relative) or ""
    data, code = _read_by(project, f"evaluate@{task}", locks, hasher)
    params = _parameters(project, task)
    known = {"encoder": name, "task": task, "digest": encoder}
    run = replace(
        run, stage=EVALUATION, deps=data, outs=outs, params=params, counts={**run.counts, **known}
    )
    return recording.write(project, run, code, commit, locks)


def is_current(project: Project, *, name: str, task: str, encoder: str) -> bool:
    """Tell whether an encoder's results are what judging it now would give, by their digests.

    The same weights, data, code and parameters as the latest judgement that the ledger tells, and
    its files unchanged since.
    """
    known = {"encoder": name, "task": task, "digest": encoder}
    told = (run for run in reversed(recording.told(project)) if run.stage == EVALUATION)
    last = next((run for run in told if known.items() <= run.counts.items()), None)
    if last is None:
        return False
    hasher = Hasher(project, {})
    data, code = _read_by(project, f"evaluate@{task}", stagefile.locked(project), hasher)
    now = data, code["digest"], _parameters(project, task)
    return (last.deps, last.code, last.params) == now and all(
        hasher.md5(path) == md5 for path, md5 in last.outs.items()
    )


def _read_by(
    project: Project, stage: str, locks: dict[str, LockedStage], hasher: Hasher
) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the data that a task reads (path -> md5 of dvc.lock), and its code as it is now."""
    declared = stagefile.declared(project).get(stage)
    outs = {path: md5 for lock in locks.values() for path, md5 in lock.outs.items()}
    before = locks[stage].deps if stage in locks else {}
    data, code = {}, {}
    for path in declared.deps if declared else ():
        if path.startswith(_MODELS):
            continue
        if recording.is_data(path, locks.values()):
            data[path] = outs.get(path) or before.get(path) or hasher.md5(path) or ""
        elif (md5 := hasher.md5(path)) is not None:
            code[path] = md5
    return data, code_listing(code)


def _parameters(project: Project, task: str) -> dict[str, Any]:
    from lapvqa.params import read_yaml

    values: dict[str, Any] = read_yaml(project.params)
    return {key: stagefile.lookup(values, key) for key in ("evaluate.common", f"evaluate.{task}")}
