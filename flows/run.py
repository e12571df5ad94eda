"""Run the pipeline in this process: the entry for the command line.

Light to import. ``run_pipeline`` starts the Prefect server before it imports Prefect, DVC and
MLflow, so that their seconds overlap.
"""

from __future__ import annotations

import difflib
import errno
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from lapvqa.errors import ConfigError, StorageFullError
from lapvqa.params import load_params
from lapvqa.project import Project
from lapvqa.uptodate.stagefile import declared

if TYPE_CHECKING:
    from rich.console import Console

    from tasks.display import StageOutcome
    from tasks.embedded import Server
    from tasks.session import Session


@dataclass
class RunResult:
    """What one run did."""

    stages: list[StageOutcome] = field(default_factory=list)
    """All stages in the order of the graph: "ran" or "up to date"."""
    prefect_flow_run: str = ""
    mlflow_run: str | None = None
    """None if there was nothing to do, or MLflow is down."""


def run_pipeline(
    root: Path,
    *,
    stage: str | None = None,
    console: Console | None = None,
    progress: bool = True,
) -> RunResult:
    """Bring the project in ``root`` up to date, or one stage of it, and return what was done.

    ``console``: where lines and the live bar go; None for nothing. Raises the failed stage's own
    LapvqaError (its ``exit_code`` is the one to end with), ConfigError for a bad params.yaml,
    BusyError if another run of the project is at work, KeyboardInterrupt on SIGINT and SIGTERM
    (the stage's processes are gone then, and the next run continues).
    """
    from rich.console import Console

    from tasks.display import Display
    from tasks.embedded import forget_address, start_server_early
    from tasks.session import opened

    project = Project(root.resolve())
    load_params(project.params)
    if stage is not None:
        _require_stage(project, stage)
    display = Display(console or Console(quiet=True), progress=progress)
    with interruptible(), opened(project.root, display) as session:
        server = start_server_early(project)
        try:
            _run_flow(session, server, stage)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise StorageFullError(
                "no space left on the disk for the records of this run",
                hint="free disk space, then run again; nothing was lost",
            ) from error
        finally:
            forget_address(server)
        known = {outcome.name: outcome for outcome in session.outcomes}
        return RunResult(
            stages=[
                known.get(name) or _untouched(name)
                for name in session.graph
                if stage is None or name in known
            ],
            prefect_flow_run=session.flow_run,
            mlflow_run=session.records.pipeline_run,
        )


def _run_flow(session: Session, server: Server, stage: str | None) -> None:
    # These imports take seconds; the server needs longer.
    from prefect import tags

    from flows.pipeline import pipeline
    from flows.stages import make_stage_flow
    from tasks.embedded import crash_leftovers, project_tag, settle

    flow = pipeline if stage is None else make_stage_flow(stage)
    session.records.open()
    server.wait()
    session.display.say(f"{server.describe()}; {session.records.describe()}")
    crash_leftovers(session.project)
    try:
        with tags(project_tag(session.project)):
            flow(str(session.project.root))
    finally:
        if session.flow_run and not settle(server, session.flow_run, task_runs=session.task_runs):
            session.display.say("Prefect did not store all of this run's history in time")


def _require_stage(project: Project, stage: str) -> None:
    """Refuse an unknown stage before anything is started."""
    known = list(declared(project))
    if stage not in known:
        near = difflib.get_close_matches(stage, known, n=1)
        guess = f"nearest: {near[0]}" if near else f"stages: {', '.join(known)}"
        raise ConfigError(f"unknown stage {stage!r}; {guess}", hint="see `lapvqa status`")


def _untouched(name: str) -> StageOutcome:
    from tasks.display import StageOutcome

    return StageOutcome(name, "up to date", 0.0)


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn SIGTERM into KeyboardInterrupt, so that it cleans up as Ctrl-C does."""

    def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
