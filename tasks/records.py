"""MLflow's records of one pipeline run: a parent run, a child per stage that ran.

Embedded: SQLite and a folder under .lapvqa/. Served: servers.mlflow_tracking_uri of local.yaml,
or MLFLOW_TRACKING_URI. MLflow may be down: then the run goes on, the records wait in
.lapvqa/spool and the next run, or ``sync_records``, brings them in.
"""

from __future__ import annotations

import logging
import os
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lapvqa import storage
from lapvqa.config import Machine, load_machine
from lapvqa.errors import LapvqaError
from lapvqa.layout import Layout
from tasks import spool
from tasks.spool import RunRecord
from tasks.streaming import Stream

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "lapvqa"
_PROBE_S = 3.0


class RecordsUnavailableError(LapvqaError):
    """MLflow does not answer."""


@dataclass(frozen=True)
class Store:
    """An MLflow store that answers."""

    client: MlflowClient
    experiment: str
    uri: str


def tracking_uri(layout: Layout, machine: Machine) -> str:
    """Return MLflow's address: local.yaml, else MLFLOW_TRACKING_URI, else the embedded store."""
    served = machine.servers.mlflow_tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    return served or _embedded_uri(layout)


def public(uri: str) -> str:
    """Return an address without the user name and password that may stand in it."""
    scheme, separator, rest = uri.partition("://")
    return scheme + separator + rest.rpartition("@")[2]


def _embedded_uri(layout: Layout) -> str:
    return f"sqlite:///{layout.mlflow_db}"


def connect(layout: Layout, machine: Machine) -> Store:
    """Import MLflow (3 s) and reach its store; RecordsUnavailableError if it does not answer."""
    uri = tracking_uri(layout, machine)
    _probe(uri)
    _quieten()
    from mlflow import MlflowClient

    layout.state.mkdir(parents=True, exist_ok=True)
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    try:
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return Store(client, str(found.experiment_id), uri)
        files = layout.mlflow_artifacts.as_uri() if uri == _embedded_uri(layout) else None
        return Store(client, client.create_experiment(EXPERIMENT, files), uri)
    except Exception as error:
        raise RecordsUnavailableError(
            f"expected MLflow at {public(uri)}, found: {error}", hint="see servers in local.yaml"
        ) from error


def sync_records(layout: Layout) -> int:
    """Bring all waiting records into MLflow and return how many runs they were.

    Idempotent. Raises RecordsUnavailableError while MLflow is down, BusyError while a pipeline
    runs (its records are not complete).
    """
    with storage.lock(layout.run_lock, what="a run of this project"):
        return _sync(layout, connect(layout, load_machine(layout)))


def _sync(layout: Layout, store: Store) -> int:
    """Ship what earlier runs left. We hold the run lock, so a record still RUNNING was killed."""
    records = spool.waiting(layout.spool)
    for record in records:
        if record.status == spool.RUNNING:
            lines = layout.record(record.stage)
            known = spool.began_after(lines, record.started)
            record.ended = lines.stat().st_mtime if known else record.started
            record.status = spool.KILLED
            spool.keep(record, layout.spool, lines=lines)
    parents: dict[str, str] = {}
    for record in records:
        parent = parents.get(record.run, "")
        if record.stage and not parent:
            owner = RunRecord(run=record.run, stage="", started=record.started)
            parent = parents[record.run] = _run_of(store, owner, parent="")
        run_id = _run_of(store, record, parent=parent)
        parents.setdefault(record.run, run_id)
        spool.ship(store.client, run_id, record, spool=layout.spool)
        spool.drop(record, layout.spool)
    return len(records)


def _run_of(store: Store, record: RunRecord, *, parent: str) -> str:
    known = spool.find_run(store.client, store.experiment, record)
    return known or spool.open_run(store.client, store.experiment, record, parent=parent)


class Records:
    """The records of one pipeline run. No method raises because MLflow is down."""

    def __init__(self, layout: Layout, machine: Machine, *, warn: Callable[[str], None]) -> None:
        self._layout, self._machine, self._warn = layout, machine, warn
        self._store: Store | None = None
        self._opened = False
        self._pipeline = RunRecord(run=uuid.uuid4().hex, stage="", started=time.time())
        self._stage: RunRecord | None = None
        self._stage_run: str | None = None
        self._stream: Stream | None = None
        self._num_stages = 0
        self.pipeline_run: str | None = None
        """MLflow's id of the parent run; None before the first stage, or if MLflow is down."""

    def open(self) -> None:
        """Reach MLflow and bring in what earlier runs left; a second call does nothing."""
        if self._opened:
            return
        self._opened = True
        try:
            self._store = connect(self._layout, self._machine)
        except RecordsUnavailableError as error:
            self._lose(error)
        self.attempt(lambda store: _sync(self._layout, store))

    def describe(self) -> str:
        """Say which mode this is and where the records lie."""
        uri = tracking_uri(self._layout, self._machine)
        if self._store is None:
            return f"MLflow: down ({public(uri)}), records wait"
        if uri == _embedded_uri(self._layout):
            return "MLflow: embedded, records in .lapvqa/mlflow.db"
        return f"MLflow: served, {public(uri)}"

    def begin(
        self,
        stage: str,
        params: dict[str, Any],
        tags: dict[str, str],
        *,
        started: float | None = None,
    ) -> str | None:
        """Open the child run of a stage; return its id, or None if MLflow is down.

        ``started``: where the stage began earlier than this call.
        """
        if not self._pipeline.tags:
            self._pipeline.tags = {k: v for k, v in tags.items() if not k.startswith("dvc.")}
            spool.keep(self._pipeline, self._layout.spool)
            self.pipeline_run = self.attempt(
                lambda store: spool.open_run(
                    store.client, store.experiment, self._pipeline, parent=""
                )
            )
        self._stage = record = RunRecord(
            run=self._pipeline.run, stage=stage, started=started or time.time(),
            params=params, tags=tags,
        )  # fmt: skip
        spool.keep(record, self._layout.spool)
        parent = self.pipeline_run
        self._stage_run = parent and self.attempt(
            lambda store: spool.open_run(store.client, store.experiment, record, parent=parent)
        )
        if self._store and self._stage_run:
            self._stream = Stream(
                self._store.client, self._stage_run, self._layout.record(stage),
                uri=self._store.uri, since=record.started,
            )  # fmt: skip
        return self._stage_run

    def end(
        self,
        status: str,
        *,
        tags: dict[str, str],
        inputs: dict[str, str],
        metrics: dict[str, float],
    ) -> None:
        """Close the child run: what was not streamed yet, then tags, inputs, final metrics."""
        record, run_id = self._stage, self._stage_run
        if record is None:
            return
        offset = self._stream.stop() if self._stream else 0
        self._stage = self._stage_run = self._stream = None
        record.status, record.ended = status, time.time()
        record.tags, record.inputs, record.metrics = {**record.tags, **tags}, inputs, metrics
        spool.keep(record, self._layout.spool, lines=self._layout.record(record.stage))
        self._num_stages += 1
        if run_id is None:
            return

        def ship(store: Store) -> None:
            spool.ship(store.client, run_id, record, spool=self._layout.spool, offset=offset)
            spool.drop(record, self._layout.spool)

        self.attempt(ship)

    def discard(self) -> None:
        """Drop the child run of a stage that DVC found unchanged after all."""
        record, run_id = self._stage, self._stage_run
        if self._stream:
            self._stream.stop()
        self._stage = self._stage_run = self._stream = None
        if record is not None:
            spool.drop(record, self._layout.spool)
        if run_id is not None:
            self.attempt(lambda store: store.client.delete_run(run_id))

    def close(self, status: str) -> None:
        """Close the parent run, if there is one; without a stage that ran it is not kept."""
        if not self._pipeline.tags:
            return
        if not self._num_stages and status == spool.FINISHED:
            spool.drop(self._pipeline, self._layout.spool)
            empty, self.pipeline_run = self.pipeline_run, None
            if empty is not None:
                self.attempt(lambda store: store.client.delete_run(empty))
            return
        self._pipeline.status, self._pipeline.ended = status, time.time()
        spool.keep(self._pipeline, self._layout.spool)
        run_id = self.pipeline_run
        if run_id is None:
            return

        def ship(store: Store) -> None:
            spool.ship(store.client, run_id, self._pipeline, spool=self._layout.spool)
            spool.drop(self._pipeline, self._layout.spool)

        self.attempt(ship)

    @property
    def store(self) -> Store | None:
        """The store, or None if MLflow is down."""
        return self._store

    def attempt(self, call: Callable[[Store], Any]) -> Any:
        """Call MLflow; if it fails, say so once and go on without it."""
        if self._store is None:
            return None
        try:
            return call(self._store)
        except Exception as error:  # noqa: BLE001 - records must never stop the science
            self._lose(error)
            return None

    def _lose(self, error: Exception) -> None:
        self._store = None
        self._warn(
            f"MLflow does not take records ({error}); they wait in .lapvqa/spool "
            "and the next run brings them in"
        )


def _probe(uri: str) -> None:
    """Ask a server for its health before MLflow's client does, which would wait for minutes."""
    if not uri.startswith(("http://", "https://")):
        return
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_PROBE_S).close()
    except (urllib.error.URLError, OSError) as error:
        raise RecordsUnavailableError(
            f"expected an MLflow server at {public(uri)}, found: {error}",
            hint="start it, or correct servers.mlflow_tracking_uri in local.yaml",
        ) from error


def _quieten() -> None:
    """Set what MLflow reads on import: no telemetry, short waits, no chatter."""
    os.environ["DO_NOT_TRACK"] = "true"  # MLflow does not understand "1"
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    logging.getLogger("alembic").setLevel(logging.ERROR)
