"""MLflow's records of one pipeline run: a parent run, a child per stage that ran.

Embedded: SQLite and a folder under .lapvqa/. Served: servers.mlflow_tracking_uri of local.yaml,
or MLFLOW_TRACKING_URI. MLflow may be down, hang or come and go: the run goes on, the records wait
in .lapvqa/spool; the running stage's stream, the end of a stage or of a run, the next run, or
``tasks.settling`` brings them in.
"""

from __future__ import annotations

import functools
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar

from lapvqa.errors import EXIT_USER, LapvqaError
from lapvqa.machine import Machine
from lapvqa.project import Project
from tasks.mlflow_records import connection, shipping, spool
from tasks.mlflow_records.connection import (
    RecordsUnavailableError,
    Store,
    connect,
    public,
    tracking_uri,
)
from tasks.mlflow_records.spool import RunRecord
from tasks.mlflow_records.streaming import Stream

P = ParamSpec("P")
R = TypeVar("R")

BUDGET_S = 30.0
"""How long a backlog may hold up the start or the end of a stage; the rest waits."""

_AGAIN_S = 30.0
_NOTE = "mlflow.note.content"


def _one_at_a_time(method: Callable[P, R]) -> Callable[P, R]:
    """Let a method of ``Records`` wait for those that other threads have called."""

    @functools.wraps(method)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        records: Any = args[0]
        with records._lock:
            return method(*args, **kwargs)

    return alone


class RecordsRefusedError(LapvqaError):
    """MLflow answers, and yet did not take some of the records."""

    exit_code = EXIT_USER


def sync_waiting(
    project: Project, store: Store, *, live: str = "", seconds: float = float("inf")
) -> int:
    """Bring in what waits, but for what still runs in the pipeline run ``live``; return how many.

    The caller holds the run lock, so any other record still RUNNING was killed. One record that
    MLflow refuses does not keep the others back: RecordsRefusedError once they are in.
    """
    end = time.monotonic() + seconds
    refused: list[str] = []
    shipped = 0
    for record in spool.waiting(project.spool):
        if record.status == spool.RUNNING:
            if record.run == live:
                continue
            _close_killed(project, record)
        try:
            _bring_in(project, store, record, end)
            shipped += 1
        except Exception as error:
            connection.probe(store.uri)
            if isinstance(error, TimeoutError):
                raise
            refused.append(f"{record.stage or 'pipeline'}: {public(str(error))}")
    if refused:
        raise RecordsRefusedError(
            f"expected MLflow to take {shipped + len(refused)} runs, "
            f"found {len(refused)} refused; {refused[0]}",
            hint="the refused ones are kept in .lapvqa/spool; `lapvqa sync` tries again",
        )
    return shipped


def _close_killed(project: Project, record: RunRecord) -> None:
    lines = project.record(record.stage)
    known = spool.began_after(lines, record.started)
    record.ended = lines.stat().st_mtime if known else record.started
    record.status = spool.KILLED
    spool.keep(record, project.spool, lines=lines)


def _bring_in(project: Project, store: Store, record: RunRecord, end: float) -> None:
    """Ship one record and drop it; TimeoutError when ``end`` (monotonic) has come."""

    def in_time() -> None:
        if time.monotonic() > end:
            raise TimeoutError("there is more than the time allows")

    in_time()
    if record.status == spool.DISCARDED:
        shipping.delete_run(store, record)
        spool.drop(record, project.spool)
        return
    run_id = shipping.run_of(store, record, spool.waits(record.run, project.spool))
    shipping.ship(store.client, run_id, record, record.folder(project.spool), in_time)
    spool.drop(record, project.spool)


class Records:
    """The records of one pipeline run. No method raises because MLflow is down.

    Stages that run side by side begin and end in threads of their own, one after the other.
    """

    def __init__(self, project: Project, machine: Machine, *, warn: Callable[[str], None]) -> None:
        self._project, self._machine, self._warn = project, machine, warn
        self._store: Store | None = None
        self._opened = False
        self._lost_at = float("-inf")
        self._told = False
        self._pipeline = RunRecord(run=uuid.uuid4().hex, stage="", started=time.time())
        self._stages: dict[str, tuple[RunRecord, Stream]] = {}
        self._lock, self._noting = threading.RLock(), threading.Lock()
        self._num_stages = 0
        self.main_params: dict[str, Any] = {}
        """What the parent run shows of the parameters."""
        self.pipeline_run: str | None = None
        """MLflow's id of the parent run; None before the first stage, or if MLflow is down."""

    def open(self) -> None:
        """Reach MLflow and bring in what earlier runs left; a second call does nothing."""
        if self._opened:
            return
        self._opened = True
        self._reach()
        self._bring_in_waiting()

    def describe(self) -> str:
        """Say which mode this is and where the records lie."""
        uri = tracking_uri(self._project, self._machine)
        if self._store is None:
            return f"MLflow: down ({public(uri)}), records wait"
        if uri == connection.embedded_uri(self._project):
            return "MLflow: embedded, records in .lapvqa/mlflow.db"
        return f"MLflow: served, {public(uri)}"

    def note(
        self, stage: str, params: dict[str, Any], tags: dict[str, str], *, started: float
    ) -> None:
        """Keep on disk that a stage has begun, in case we are killed; asks and awaits nobody."""
        run, folder = self._pipeline.run, self._project.spool
        with self._noting:  # not the lock that is held while MLflow answers
            if spool.waits(run, folder) is None:
                pipeline = replace(self._pipeline, params=self.main_params, tags=_of_pipeline(tags))
                spool.keep(pipeline, folder)
            spool.keep(RunRecord(run, stage, started, params=params, tags=tags), folder)

    @_one_at_a_time
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
        self._reach()
        if not self._pipeline.tags:
            self._pipeline.tags = _of_pipeline(tags)
            self._pipeline.params = self.main_params
            spool.keep(self._pipeline, self._project.spool)
        if self.pipeline_run is None:
            self.pipeline_run = self.attempt(self._begin_pipeline)
        record = RunRecord(
            run=self._pipeline.run, stage=stage, started=started or time.time(),
            params=params, tags=tags,
        )  # fmt: skip
        spool.keep(record, self._project.spool)
        run: str | None = self.attempt(lambda store: shipping.run_of(store, record, self._pipeline))
        stream = Stream(
            record, self._project.record(stage), self._project.spool,
            store=self._store, run_id=run,
            connect=lambda: connect(self._project, self._machine),
        )  # fmt: skip
        self._stages[stage] = record, stream
        return run

    @_one_at_a_time
    def end(
        self,
        stage: str,
        status: str,
        *,
        tags: dict[str, str],
        inputs: dict[str, str],
        metrics: dict[str, float],
        pictures: Path | None = None,
        ended: float | None = None,
    ) -> None:
        """Close the child run: what was not streamed yet, then tags, inputs, final metrics.

        ``pictures``: a folder whose files become artifacts of the run. ``ended``: when the stage
        ended, where that was earlier than this call.
        """
        record = self._stop(stage)
        if record is None:
            return
        record.status, record.ended = status, ended or time.time()
        record.tags, record.inputs, record.metrics = {**record.tags, **tags}, inputs, metrics
        lines = self._project.record(record.stage)
        spool.keep(record, self._project.spool, lines=lines, pictures=pictures)
        self._num_stages += 1
        self._bring_in_waiting()

    @_one_at_a_time
    def discard(self, stage: str) -> None:
        """Drop the child run of a stage that DVC found unchanged after all."""
        record = self._stop(stage)
        if record is not None:
            self._forget(record)

    @_one_at_a_time
    def close(
        self, status: str, metrics: Mapping[str, float] = MappingProxyType({}), note: str = ""
    ) -> None:
        """Close the parent run, if there is one; without a stage that ran it is not kept.

        ``metrics``: what it shows of the results; ``note``: its description, in Markdown.
        """
        if not self._pipeline.tags:
            return
        if not self._num_stages and status == spool.FINISHED:
            self.pipeline_run = None
            self._forget(self._pipeline)
            return
        self._pipeline.status, self._pipeline.ended = status, time.time()
        self._pipeline.metrics = dict(metrics)
        self._pipeline.tags |= {_NOTE: note} if note else {}
        spool.keep(self._pipeline, self._project.spool)
        self._reach()
        self._bring_in_waiting()

    @property
    def store(self) -> Store | None:
        """The store, or None if MLflow is down."""
        return self._store

    def attempt(self, call: Callable[[Store], Any]) -> Any:
        """Call MLflow; if it fails, say so once per outage and go on without it."""
        if self._store is None:
            return None
        try:
            return call(self._store)
        except RecordsRefusedError as error:
            self._warn(str(error))
            return None
        except Exception as error:  # noqa: BLE001 - records must never stop the science
            self._lose(error)
            return None

    def _begin_pipeline(self, store: Store) -> str:
        run = shipping.run_of(store, self._pipeline)
        shipping.log_params(store.client, run, self._pipeline.params)
        return run

    def _reach(self) -> None:
        """Look for MLflow again, if it was not asked a moment ago."""
        if self._store is None and time.monotonic() - self._lost_at > _AGAIN_S:
            try:
                self._store = connect(self._project, self._machine)
                self._told = False
            except RecordsUnavailableError as error:
                self._lose(error)

    def _bring_in_waiting(self) -> None:
        run = self._pipeline.run
        self.attempt(lambda store: sync_waiting(self._project, store, live=run, seconds=BUDGET_S))

    def _forget(self, record: RunRecord) -> None:
        record.status = spool.DISCARDED
        spool.keep(record, self._project.spool)
        self._bring_in_waiting()

    def _stop(self, stage: str) -> RunRecord | None:
        """End the stage's stream, and know what it knows of MLflow."""
        if stage not in self._stages:
            return None
        record, stream = self._stages.pop(stage)
        self._store = stream.stop()
        if self._store is None:
            self._lose(RecordsUnavailableError("it went away, or does not answer"))
        else:
            self._told = False
        return record

    def _lose(self, error: Exception) -> None:
        self._store, self._lost_at = None, time.monotonic()
        if self._told:
            return
        self._told = True
        self._warn(
            f"MLflow does not take records ({public(str(error))}); they wait in .lapvqa/spool "
            "and the next run brings them in"
        )


def _of_pipeline(tags: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if not key.startswith("dvc.")}
