"""What a run owes once its stages are done: ledger, MLflow's records, the registered encoder.

A run that is killed, or finds MLflow down, leaves a mark; the next `lapvqa run`, also one with
nothing to do, and `lapvqa sync` make up for it. Every step looks before it writes, so settling
twice is settling once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lapvqa import storage
from lapvqa.lineage import first_ledger, ledger
from lapvqa.lineage.ledger import MODEL, Draft, Entry
from lapvqa.lineage.recording import read_commit
from lapvqa.machine import load_machine
from lapvqa.params import load_params
from lapvqa.project import Project
from lapvqa.uptodate import manifest
from lapvqa.uptodate.stagefile import UnsupportedStagefileError
from tasks import ledger_lines
from tasks.mlflow_records import registry, spool
from tasks.mlflow_records.connection import Store, connect
from tasks.mlflow_records.records import sync_waiting


@dataclass(frozen=True)
class Settled:
    """What was made up for."""

    stages: list[str]
    """Stages that the ledger knew nothing of."""
    records: int
    """Runs that were brought into MLflow."""
    version: str | None
    """The encoder's version in the registry; None if there is no encoder."""


def owe(project: Project) -> None:
    """Leave the mark of a run that has begun."""
    storage.write_json(project.unsettled, {"what": "ledger, MLflow's records, registered encoder"})


def settle(project: Project) -> Settled:
    """Do what is owed; the caller holds the run lock.

    Raises RecordsUnavailableError while MLflow is down, RecordsRefusedError if it did not take
    some records: the ledger is complete then, and the mark stays.
    """
    first_ledger.take_over(project)
    stages = ledger_lines.complete(project, read_commit(project.root))
    if stages:
        remember(project, lambda _: None)
    store = connect(project, load_machine(project))
    records = sync_waiting(project, store)
    version = register(project, store)
    project.unsettled.unlink(missing_ok=True)
    return Settled(stages, records, version)


def register(project: Project, store: Store) -> str | None:
    """Register the exported encoder, if there is one, and tell the ledger; return its version."""
    folder = project.model_dir(load_params(project.params).pretrain.objective)
    if not (folder / registry.WEIGHTS).exists():
        return None
    registered = registry.register_folder(store, project, folder)
    name = registry.model_name(store, project)
    model = {"name": name, "aliases": [registry.CANDIDATE], **registered._asdict()}
    ledger.extend(project, lambda before: _unless_last(before, model))
    return registered.version


def _unless_last(before: list[Entry], model: dict[str, Any]) -> list[Draft]:
    """Return the entry of a candidate, unless it is what was said last of any candidate."""
    said = (entry.payload for entry in reversed(before) if entry.kind == MODEL and entry.payload)
    last = next((one for one in said if registry.CANDIDATE in one.get("aliases", [])), None)
    return [] if last == model else [Draft(MODEL, model)]


def remember(project: Project, warn: Callable[[str], None]) -> None:
    """Keep what is up to date for the next quick look."""
    try:
        manifest.remember(project)
    except UnsupportedStagefileError as error:
        # Then `lapvqa run` asks DVC each time, which is slower and no less right.
        warn(f"no quick check of what is up to date: {error}")


def close(project: Project, *, registered: bool) -> None:
    """Take the mark away if a run that has ended well owes nothing any more."""
    if registered and not spool.waiting(project.spool):
        project.unsettled.unlink(missing_ok=True)
