"""A running stage's metrics on their way into MLflow, and the machine's load beside them.

Two side threads: one measures the load and writes it to disk, one ships what is on disk. Neither
the stage nor the task around it ever waits for MLflow here, but for ``PATIENCE_S`` at the end.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lapvqa.recorder import Recorder
from tasks import mlflow_private
from tasks.mlflow_records import shipping, spool
from tasks.mlflow_records.spool import RunRecord

if TYPE_CHECKING:
    from tasks.mlflow_records.connection import Store

PATIENCE_S = 5.0
_INTERVAL_S = 2.0
_LONGEST_PAUSE_S = 60.0
_LOAD_S = 3.0
_log = logging.getLogger(__name__)


class StoppedError(Exception):
    """The stage is over; what is not shipped yet is shipped by whoever ended it."""


class Stream:
    """Follows the JSON lines of one run of a stage, through any outage of MLflow."""

    def __init__(
        self, record: RunRecord, lines: Path, spool_dir: Path, *,
        store: Store | None, run_id: str | None, connect: Callable[[], Store],
    ) -> None:  # fmt: skip
        self._record, self._lines, self._spool = record, lines, spool_dir
        self._store, self._run_id, self._connect = store, run_id, connect
        self._over = threading.Event()
        self._follower = threading.Thread(target=self._follow, name="records", daemon=True)
        self._sampler = threading.Thread(target=self._sample, name="load", daemon=True)
        self._follower.start()
        self._sampler.start()

    def stop(self) -> Store | None:
        """Stop both; return the store if it answered last and nothing hangs in it."""
        self._over.set()
        self._sampler.join(PATIENCE_S)
        self._follower.join(PATIENCE_S)
        return None if self._follower.is_alive() else self._store

    def _follow(self) -> None:
        pause = _INTERVAL_S
        while not self._over.wait(pause):
            try:
                self._ship()
                pause = _INTERVAL_S
            except StoppedError:
                return
            except Exception as error:  # noqa: BLE001 - an outage, whatever it looks like
                _log.debug("MLflow took no records: %s", type(error).__name__)
                # A deleted run is found missing, and opened anew, by its tags.
                self._store = self._run_id = None
                pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _ship(self) -> None:
        # Known before all is shipped: if the stage ends meanwhile, its end ships the rest.
        store = self._store = self._store or self._connect()
        if self._run_id is None:
            pipeline = spool.waits(self._record.run, self._spool)
            self._run_id = shipping.run_of(store, self._record, pipeline)
        folder = self._record.folder(self._spool)
        # Until the stage has begun, these are the lines of the run before.
        if spool.began_after(self._lines, self._record.started):
            self._ship_file(store, self._run_id, self._lines, spool.LINES)
        if (folder / spool.LOAD).exists():
            self._ship_file(store, self._run_id, folder / spool.LOAD, spool.LOAD)

    def _ship_file(self, store: Store, run_id: str, lines: Path, name: str) -> None:
        folder = self._record.folder(self._spool)
        shipping.ship_points(store.client, run_id, lines, folder, self._go_on, name=name)

    def _go_on(self) -> None:
        if self._over.is_set():
            raise StoppedError

    def _sample(self) -> None:
        """Write the machine's load; on a full disk it ends, the stage itself says why."""
        if self._over.wait(_LOAD_S):  # before the import: most stages of a small archive are over
            return
        monitors = mlflow_private.load_monitors()
        path = self._record.folder(self._spool) / spool.LOAD
        with suppress(OSError), closing(Recorder(path, stage="load", machine_readable=True)) as to:
            step = 0
            while not self._over.wait(_LOAD_S):
                for monitor in monitors:
                    monitor.collect_metrics()
                    values = monitor.aggregate_metrics()
                    monitor.clear_metrics()
                    to.metrics({f"system/{key}": value for key, value in values.items()}, step=step)
                step += 1
