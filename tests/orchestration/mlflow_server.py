"""A real MLflow server on this machine, to be killed, halted and started again."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from pathlib import Path

from others_at_work import free_port


class MlflowServer:
    """One server on one SQLite store and one folder of artifacts."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        environment = {
            **os.environ, "DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }  # fmt: skip
        environment.pop("MLFLOW_TRACKING_URI", None)
        command = [
            sys.executable, "-m", "mlflow", "server", "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self._folder / 'store.db'}",
            "--artifacts-destination", str(self._folder / "artifacts"),
            "--host", "127.0.0.1", "--port", str(self._port),
        ]  # fmt: skip
        with (self._folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, cwd=self._folder, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        end = time.monotonic() + 120
        while not self._answers():
            assert time.monotonic() < end, (self._folder / "log.txt").read_text()
            time.sleep(0.1)

    def send(self, what: signal.Signals) -> None:
        """Send a signal to all of its processes."""
        assert self._process is not None
        os.killpg(self._process.pid, what)

    def kill(self) -> None:
        """Kill it as a crash would, if it runs."""
        if self._process is not None:
            self.send(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def rows(self, query: str) -> list[tuple[object, ...]]:
        """Ask its store, past the server."""
        with closing(sqlite3.connect(self._folder / "store.db", timeout=30)) as database:
            return database.execute(query).fetchall()

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()
        except OSError:
            return False
        return True
