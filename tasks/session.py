"""The state that the tasks of one pipeline run share, and the decorator of all of them.

Held in a context variable and not passed as arguments: Prefect hashes and stores arguments, and
consoles and locks are neither.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from rich.console import Console

from lapvqa import storage
from lapvqa.lineage import first_ledger
from lapvqa.lineage.recording import Commit, read_commit
from lapvqa.machine import Machine, load_machine
from lapvqa.project import Project
from tasks.display import Display, StageOutcome
from tasks.dvc_repository import StageNode, mend_cut_files
from tasks.mlflow_records.records import Records

if TYPE_CHECKING:
    from prefect import Task

P = ParamSpec("P")
R = TypeVar("R")


@dataclass
class Session:
    """One run of the pipeline or of one stage."""

    project: Project
    machine: Machine
    display: Display
    records: Records
    commit: Commit
    """The code, as it was when the run began."""
    graph: dict[str, StageNode] = field(default_factory=dict)
    """Stages by name, in the order in which they run."""
    wanted: list[str] = field(default_factory=list)
    """Stages that the run is to bring up to date."""
    outcomes: list[StageOutcome] = field(default_factory=list)
    task_runs: int = 0
    """How many Prefect task runs have begun."""
    flow_run: str = ""
    """Prefect's id of the flow run."""
    settled: bool = False
    """MLflow was asked to register the encoder."""


_current: ContextVar[Session | None] = ContextVar("lapvqa_session", default=None)


def current() -> Session:
    """Return the run that this task belongs to; LookupError outside of one."""
    session = _current.get()
    if session is None:
        raise LookupError("no pipeline run is open here")
    return session


@contextmanager
def opened(root: Path, display: Display | None = None) -> Iterator[Session]:
    """Return the open run, or open one: hold the run lock, and close its records at the end.

    Raises BusyError, which names the holder, if another run of this project is at work.
    """
    already = _current.get()
    if already is not None:
        yield already
        return
    project = Project(root.resolve())
    machine = load_machine(project)
    with storage.lock(project.run_lock, what="a run of this project"):
        display = display or Display(Console())
        mend_cut_files(project, display.say)
        first_ledger.take_over(project)
        session = Session(
            project=project,
            machine=machine,
            display=display,
            records=Records(project, machine, warn=display.say),
            commit=read_commit(project.root),
        )
        token = _current.set(session)
        try:
            yield session
        finally:
            display.clear()
            _current.reset(token)


def pipeline_task(**options: Any) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a Prefect task: never cached (DVC is the only cache), never retried, counted.

    Bad data stays bad, and a stage is resumed by the next run, not repeated by this one.
    """

    from prefect import task
    from prefect.cache_policies import NO_CACHE

    def wrap(function: Callable[P, R]) -> Task[P, R]:
        @functools.wraps(function)
        def counted(*args: P.args, **kwargs: P.kwargs) -> R:
            current().task_runs += 1
            return function(*args, **kwargs)

        return task(cache_policy=NO_CACHE, persist_result=False, retries=0, **options)(counted)

    return wrap
