"""Weights that a training may go on from: the champion's, kept apart under their sha256.

DVC deletes a stage's outputs before it runs again, so what pretraining starts from lies in
.lapvqa/starts/<sha256>/, with the list of whom those weights have seen. They are found in the
model's folder, or in DVC's cache as long as nobody has collected them there.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from lapvqa import storage
from lapvqa.errors import MissingArtifactError
from lapvqa.gate import champions
from lapvqa.lineage import dvc_cache, ledger, runs
from lapvqa.lineage.runs import Run
from lapvqa.pretrain import seen
from lapvqa.project import Project
from lapvqa.schemas import MEMBERS, MEMBERS_FILE
from lapvqa.uptodate.stagefile import locked

_WEIGHTS, _EXPORTED = "model_last.pt", "encoder.safetensors"


@dataclass(frozen=True)
class Start:
    """Weights of a whole model: their sha256, and the md5 of both files in DVC's cache."""

    sha256: str
    weights: tuple[str, str]
    """Path in the project, and md5."""
    members: tuple[str, str]

    def files(self) -> tuple[tuple[tuple[str, str], str], ...]:
        """Return place (path, md5) and name of each file; weights last."""
        return (self.members, MEMBERS_FILE), (self.weights, _WEIGHTS)


def champion(project: Project) -> Start | None:
    """Return the weights behind the champion that a gate has made; None if none is known."""
    entries = ledger.entries(project)
    last = champions.last_move(entries)
    if last is None:
        return None
    told = {entry.id: run for entry in entries if (run := runs.of_entry(entry))}
    for export in reversed(told.values()):
        if last["sha256"] in {
            facts.get("sha256") for path, facts in export.files.items() if path.endswith(_EXPORTED)
        }:
            trained = (told.get(made) for made in export.sources.values())
            return next((found for run in trained if run and (found := _of_run(run))), None)
    return None


def fault(project: Project, start: Start | None) -> str:
    """Return why a training cannot go on from these weights; "" if it can."""
    if start is None:
        without = champions.is_set_without_gate(ledger.entries(project))
        return champions.WITHOUT_GATE if without else "the ledger knows no champion"
    folder = project.start(start.sha256)
    for place, name in start.files():
        if not ((folder / name).exists() or _found(project, *place)):
            return f"{name} of the champion is neither here nor in DVC's cache"
    return ""


def provide(project: Project, start: Start) -> str:
    """Put the weights and their members where pretraining finds them; return the sha256.

    Raises MissingArtifactError if they are nowhere, or are not these bytes.
    """
    folder = project.start(start.sha256)
    for (path, md5), name in start.files():
        if (folder / name).exists():
            continue
        source = _found(project, path, md5)
        if source is None:
            raise MissingArtifactError(
                f"expected {path} of the champion here or in DVC's cache, found neither",
                hint="`dvc fetch` it from the remote, or `lapvqa retrain --from scratch`",
            )
        with storage.atomic_path(folder / name) as temporary:
            shutil.copyfile(source, temporary)
    found = storage.sha256_file(folder / _WEIGHTS)
    if found != start.sha256:
        shutil.rmtree(folder)
        raise MissingArtifactError(
            f"expected weights with sha256 {start.sha256[:12]}, found {found[:12]}",
            hint="the model's folder was changed: `dvc checkout`, then run again",
        )
    return start.sha256


def unfit(project: Project, start: Start) -> str:
    """Return what provided weights have seen that is no training data now; "" if nothing."""
    return seen.no_longer_training(project, project.start(start.sha256) / MEMBERS_FILE)


def forget_others(project: Project, kept: str | None) -> None:
    """Delete all weights to start from but one: DVC's cache has the others."""
    for folder in project.starts.glob("*"):
        if folder.name != kept:
            shutil.rmtree(folder)


def new_studies(project: Project, objective: str) -> int:
    """Return how many studies to learn from the last training has not seen."""
    members = project.model_dir(objective) / MEMBERS_FILE
    known: set[str] = set()
    if members.exists():
        table = storage.read_table(members, MEMBERS, made_by="pretrain")
        known = set(table["study_key"].to_pylist())
    return len(seen.studies_with_pairs(project, "train") - known)


def _of_run(run: Run) -> Start | None:
    def place(name: str) -> tuple[str, str] | None:
        return next((out for out in run.outs.items() if Path(out[0]).name == name), None)

    weights, members = place(_WEIGHTS), place(MEMBERS_FILE)
    digest = weights and run.files.get(weights[0], {}).get("sha256")
    return Start(digest, weights, members) if weights and members and digest else None


def _found(project: Project, path: str, md5: str) -> Path | None:
    """Return the file with these bytes: in place, if dvc.lock says that it is this one."""
    here = project.root / path
    if here.exists() and any(lock.outs.get(path) == md5 for lock in locked(project).values()):
        return here
    return dvc_cache.stored(project, md5)
