"""One run of a flow: by Prefect, which keeps its history, and without it where Prefect fails.

Importing this module imports Prefect: start the server before (``prefect_server``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from prefect import Flow, tags

from lapvqa.project import Project
from tasks.prefect_calls import History, Outcome, through
from tasks.prefect_history import Missed, crash_leftovers, tell_missed
from tasks.prefect_server import Server, ServerUnavailableError, settle

R = TypeVar("R")
Say = Callable[[str], None]


def run_flow(
    flow: Flow[[str], R], project: Project, server: Server, history: History, *,
    tag: str, say: Say, about: str = "",
) -> R:  # fmt: skip
    """Call ``flow`` on the project; return what it returns, or raise what it raises.

    ``tag``: of these flow runs; the caller holds the lock under which they run, so those that
    Prefect takes for running are dead. ``about``: what is said beside the server.
    """
    root = str(project.root)
    logging.raiseExceptions = False  # log lines that Prefect does not take must not fill the screen
    if not _is_ready(project, server, history, tag, say, about):
        return flow.fn(root)
    outcome = Outcome()
    try:
        with tags(tag):
            return through(lambda: flow(root), lambda: flow.fn(root), history.lose, outcome)
    finally:
        if outcome.flow_run:
            _close(project, server, history, outcome, say)


def _is_ready(
    project: Project, server: Server, history: History, tag: str, say: Say, about: str
) -> bool:
    """Wait for the server and clear up in it; False, and said so, if that is impossible."""
    try:
        server.wait()
        if about:
            say(f"{server.describe()}; {about}")
        crash_leftovers(project, tag=tag)
    except ServerUnavailableError as error:
        say(f"Prefect will know nothing of this run: {error}")
        return False
    except Exception as error:  # noqa: BLE001 - records must never stop the science
        history.lose(str(error) or type(error).__name__)
    return True


def _close(project: Project, server: Server, history: History, outcome: Outcome, say: Say) -> None:
    """See that Prefect knows how everything ended; if not now, the next run tells it."""
    complete = settle(server, outcome.flow_run, task_runs=len(history.task_states))
    if complete and not history.lost and not server.restarts:
        return
    Missed(outcome.flow_run, outcome.state, history.task_states).keep(project)
    try:
        if tell_missed(project):
            return
        why = "the records of some tasks are lost"
    except Exception as error:  # noqa: BLE001 - records must never stop the science
        why = history.lost or str(error) or type(error).__name__
        why = f"{why.partition(chr(10))[0]}; the next run tells it how this one ended"
    say(f"Prefect's history of this run is incomplete: {why}")
