"""The state that the tasks of one pipeline run share, and the decorator of all of them.

Held in a context variable and not passed as arguments: Prefect hashes and stores arguments, and
consoles and locks are neither.
"""

from __future__ import annotations

import functools
import threading
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
from tasks import prefect_history
from tasks.display import Display, StageOutcome
from tasks.dvc_repository import StageNode, mend_cut_files
from tasks.mlflow_records.records import Records
from tasks.prefect_calls import History, kept, through

if TYPE_CHECKING:
    from tasks.work import Work

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
    stop: threading.Event = field(default_factory=threading.Event)
    """Set when the run is interrupted, for the stages that other threads run."""
    history: History = field(default_factory=History)
    flow_run: str = ""
    """Prefect's id of the flow run; empty if Prefect knows nothing of it."""
    flow_name: str = ""
    """Prefect's name of the flow run, which MLflow's run gets too."""

    def tags(self, stage: str) -> dict[str, str]:
        """Return the tags of a stage's record in MLflow, as far as no server has a part in them."""
        return {
            "dvc.stage": stage,
            "git.commit": self.commit.sha or "not under git",
            "git.dirty": str(self.commit.dirty).lower(),
            "mlflow.source.git.commit": self.commit.sha or "",
        }

    settled: bool = False
    """MLflow was asked to register the encoder."""
    work: Work | None = None
    """What the tasks of the run follow, once it has begun."""


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


def pipeline_task(**options: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a Prefect task: never cached (DVC is the only cache), never retried, counted.

    Bad data stays bad, and a stage is resumed by the next run, not repeated by this one. Outside of
    a flow run, where there is no Prefect, a task is a plain call.
    """

    from prefect import task
    from prefect.cache_policies import NO_CACHE
    from prefect.runtime import flow_run, task_run

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        @kept
        @functools.wraps(function)
        def counted(*args: P.args, **kwargs: P.kwargs) -> R:
            states, run = current().history.task_states, str(task_run.id)
            states[run] = prefect_history.CRASHED
            try:
                value = function(*args, **kwargs)
            except Exception:
                states[run] = prefect_history.FAILED
                raise
            states[run] = prefect_history.COMPLETED
            return value

        made = task(cache_policy=NO_CACHE, persist_result=False, retries=0, **options)(counted)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            plain = functools.partial(function, *args, **kwargs)
            if not flow_run.id:
                return plain()
            return through(lambda: made(*args, **kwargs), plain, current().history.lose)

        return call

    return wrap
