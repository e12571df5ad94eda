"""The champion's version in the registry; the ledger says who it is, the registry has the weights.

The ledger travels with git and the registry does not: a clone may know a champion that it does not
have. Then nothing is judged or moved there, as if there were none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lapvqa.errors import ConfigError
from lapvqa.gate import champions
from lapvqa.lineage import ledger
from lapvqa.lineage.ledger import CHAMPION, Entry
from lapvqa.machine import load_machine
from lapvqa.project import Project
from tasks.mlflow_records import registry
from tasks.mlflow_records.connection import Store, embedded_uri, tracking_uri
from tasks.mlflow_records.registry import Registered


def find(
    project: Project, store: Store, entries: Iterable[Entry] | None = None
) -> Registered | None:
    """Return the version with the alias; None before a gate has passed.

    Earlier versions gave the alias to whatever was exported last: that is no champion. Raises
    ConfigError where the ledger knows a champion that this registry does not have.
    """
    last = champions.last_move(ledger.entries(project) if entries is None else entries)
    if last is None:
        return None
    stands = registry.aliased(store, project, CHAMPION)
    found = stands or registry.find(store, project, str(last["sha256"]))
    if found is None:
        raise not_registered(_said(last))
    return found


def require_registry(project: Project) -> None:
    """Raise ConfigError if there is a champion and no registry at all; no registry is made."""
    embedded = tracking_uri(project, load_machine(project)) == embedded_uri(project)
    last = champions.last_move(ledger.entries(project))
    if last is not None and embedded and not project.mlflow_db.exists():
        raise not_registered(_said(last))


def not_registered(said: str) -> ConfigError:
    """Return the error for weights that the ledger knows and this registry does not have."""
    return ConfigError(
        f"the ledger says: {said}; the model registry of this clone does not have it",
        hint="MLflow's registry does not travel with git: do this where the gate has promoted, or "
        "name that MLflow server in local.yaml (servers.mlflow_tracking_uri). If it is lost: with "
        "the dvc.lock of that model, `dvc checkout` and `lapvqa sync` register it again",
    )


def _said(last: Mapping[str, Any]) -> str:
    return f"the champion is version {last['version']} ({last['sha256'][:12]})"
