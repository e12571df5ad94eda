"""A toy project (the real graph, stages that take no time) and a way to run it as a person does."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from others_at_work import working_in

from lapvqa import storage
from lapvqa.machine import load_machine
from lapvqa.project import Project
from tasks.mlflow_records.connection import connect
from tasks.mlflow_records.records import sync_waiting

TOY = Path(__file__).parent / "toy"
IGNORED = "/.lapvqa/\n/data/\n/models/\n/results/\n/reports/\n/input/\n/local.yaml\n"
DRIVER = """
import json, sys
from pathlib import Path
from rich.console import Console
from flows.commands.run import run_pipeline
from lapvqa.errors import LapvqaError
try:
    result = run_pipeline(Path.cwd(), stage=json.loads(sys.argv[1]), console=Console(width=200))
except LapvqaError as error:
    print("ERROR", type(error).__name__, error)
    raise SystemExit(error.exit_code)
except KeyboardInterrupt:
    raise SystemExit(130)
print("RESULT", json.dumps({
    "stages": {one.name: one.status for one in result.stages},
    "reasons": {one.name: one.reason for one in result.stages},
    "prefect": result.prefect_flow_run, "mlflow": result.mlflow_run,
}))
"""


@dataclass(frozen=True)
class Finished:
    """A run that has ended."""

    code: int
    text: str
    seconds: float

    @property
    def result(self) -> dict[str, Any]:
        """What ``run_pipeline`` returned."""
        lines = [line for line in self.text.splitlines() if line.startswith("RESULT ")]
        assert lines, self.text
        found: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT "))
        return found


@dataclass(frozen=True)
class Toy:
    """A toy project in a folder of its own, under git and DVC."""

    root: Path

    @property
    def project(self) -> Project:
        return Project(self.root)

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MLFLOW"))}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return {**kept, "DVC_NO_ANALYTICS": "1", "PATH": path}

    def start(self, stage: str | None = None) -> subprocess.Popen[str]:
        """Start ``run_pipeline`` in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-c", DRIVER, json.dumps(stage)],
            cwd=self.root, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, stage: str | None = None) -> Finished:
        """Run it to its end."""
        began = time.monotonic()
        process = self.start(stage)
        text = process.communicate(timeout=280)[0]
        return Finished(process.returncode, text, time.monotonic() - began)

    def command(self, *words: str) -> None:
        """Run a command in the project; it must succeed."""
        done = subprocess.run(
            words, cwd=self.root, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    @property
    def lock(self) -> bytes:
        return self.project.dvc_lock.read_bytes()

    def trouble(self, text: str) -> None:
        """Say what shall go wrong (see toy.py); nothing for no trouble."""
        path = self.root / "input" / "trouble"
        path.write_text(text) if text else path.unlink(missing_ok=True)

    def history(self, query: str) -> list[tuple[Any, ...]]:
        """Ask Prefect's database, with no server running."""
        with closing(sqlite3.connect(self.project.prefect_home / "prefect.db")) as database:
            return database.execute(query).fetchall()

    def is_followed(self, stage: str) -> bool:
        """Tell whether Prefect knows that the stage is at work."""
        with suppress(sqlite3.OperationalError):  # locked, or not made yet
            running = "select count(*) from task_run where state_type = 'RUNNING' and name = "
            return self.history(f"{running} '{stage}'") != [(0,)]
        return False

    def processes(self) -> list[psutil.Process]:
        """Return all processes that work in this project's folder."""
        return working_in(self.root)


def wait_until(condition: Callable[[], object], *, seconds: float = 150) -> None:
    """Return when ``condition`` holds; fail if it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def sync_records(project: Project) -> int:
    """Bring all waiting records into MLflow, as ``tasks.settling`` does; return how many."""
    with storage.lock(project.run_lock, what="a run of this project"):
        return sync_waiting(project, connect(project, load_machine(project)))
