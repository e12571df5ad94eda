"""A running stage's metrics on their way into MLflow, and the machine's load beside them."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tasks import spool

if TYPE_CHECKING:
    from mlflow import MlflowClient

_INTERVAL_S = 2.0
_SYSTEM_METRICS_S = 3.0


class Stream:
    """Follows the JSON lines of one run of a stage from a thread of its own."""

    def __init__(
        self, client: MlflowClient, run_id: str, lines: Path, *, uri: str, since: float
    ) -> None:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self._client, self._run_id, self._lines, self._since = client, run_id, lines, since
        self._offset = 0
        self._over = threading.Event()
        self._system = SystemMetricsMonitor(
            run_id, sampling_interval=_SYSTEM_METRICS_S, tracking_uri=uri
        )
        self._thread = threading.Thread(target=self._follow, name="records", daemon=True)
        self._system.start()
        self._thread.start()

    def stop(self) -> int:
        """Stop both; return how many bytes of the stage's lines MLflow has."""
        self._over.set()
        self._thread.join()
        self._system.finish()
        return self._offset

    def _follow(self) -> None:
        # On failure the thread ends: the record is kept whole and shipped from there.
        with suppress(Exception):
            while not self._over.wait(_INTERVAL_S):
                # Until the stage has begun, these are the lines of the run before.
                if spool.began_after(self._lines, self._since):
                    entries, offset = spool.read_entries(self._lines, self._offset)
                    spool.log_points(self._client, self._run_id, spool.points(entries))
                    self._offset = offset
