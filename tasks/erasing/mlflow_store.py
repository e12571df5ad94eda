"""MLflow: the bytes of runs that were deleted before, and the versions of affected models."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing, suppress

from lapvqa.erasure.stores import Finding, Searched
from lapvqa.erasure.traces import Traces
from lapvqa.machine import load_machine
from lapvqa.project import Project
from tasks.mlflow_records import registry
from tasks.mlflow_records.connection import (
    RecordsUnavailableError,
    connect,
    embedded_uri,
    tracking_uri,
)

CONTAMINATED = "lapvqa.contaminated"
"""Tag of a version whose training saw somebody who was erased since: the request's name."""


class DeletedRuns:
    """Runs that somebody deleted: their rows and artefacts are there until `mlflow gc`."""

    name = "MLflow runs deleted before"
    method = "mlflow gc"

    def __init__(self, project: Project) -> None:
        self._project = project
        self._embedded = tracking_uri(project, load_machine(project)) == embedded_uri(project)
        if not self._embedded:
            self.method = "none: run `mlflow gc` at the server, then search again there"

    def search(self, traces: Traces) -> Searched:
        """Count them; what they hold is searched with the databases and artefacts."""
        del traces
        return Searched(self.name, len(self._runs()), 0, ())

    def remove(self, findings: Sequence[Finding], traces: Traces, *, keep_listings: bool) -> int:
        """Have MLflow delete them for good; return how many."""
        del findings, traces, keep_listings
        runs = self._runs()
        if runs:
            subprocess.run(
                [sys.executable, "-m", "mlflow", "gc",
                 "--backend-store-uri", embedded_uri(self._project), "--run-ids", ",".join(runs)],
                cwd=self._project.root, capture_output=True, check=True,
                env={**os.environ, "MLFLOW_TRACKING_URI": embedded_uri(self._project)},
            )  # fmt: skip
        return len(runs)

    def _runs(self) -> list[str]:
        if not self._embedded or not self._project.mlflow_db.exists():
            return []
        with closing(sqlite3.connect(self._project.mlflow_db)) as database:
            query = "SELECT run_uuid FROM runs WHERE lifecycle_stage = 'deleted' ORDER BY run_uuid"
            with suppress(sqlite3.OperationalError):  # a database of no tables yet
                return [run for (run,) in database.execute(query)]
        return []


def mark_versions(project: Project, request: str, weights: set[str]) -> list[str]:
    """Tag the registered versions of these weights (sha256) as contaminated; return their numbers.

    Empty if MLflow does not answer: the ledger has the mark in any case.
    """
    try:
        store = connect(project, load_machine(project))
    except RecordsUnavailableError:
        return []
    marked, client, name = [], store.client, registry.model_name(store, project)
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.tags.get("sha256") in weights:
            client.set_model_version_tag(name, version.version, CONTAMINATED, request)
            marked.append(str(version.version))
    return sorted(marked, key=int)
