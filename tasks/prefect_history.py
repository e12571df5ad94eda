"""What a Prefect server has missed of a run, told to it as soon as it answers.

A run whose server was away at its end leaves a note under .lapvqa/; the run itself, or the next
one, sets the flow run and its task runs to the states in which they truly ended. Runs without a
note whose processes are dead were killed: they end as CRASHED. The caller holds the run lock.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from lapvqa import storage
from lapvqa.project import Project
from tasks.prefect_server import project_tag

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

COMPLETED, FAILED, CRASHED = "COMPLETED", "FAILED", "CRASHED"
_PAGE = 200


@dataclass(frozen=True)
class Missed:
    """How a flow run and its task runs ended, by Prefect's ids and names of states."""

    flow_run: str
    state: str
    task_runs: dict[str, str]

    def keep(self, project: Project) -> None:
        """Write the note."""
        storage.write_json(_folder(project) / f"{self.flow_run}.json", asdict(self))


def tell_missed(project: Project) -> bool:
    """Tell Prefect what it has missed; return whether it now has all of it.

    Raises what Prefect's client raises if the server does not answer. A run of which the server
    knows nothing (it has another database now) stays untold for good.
    """
    from prefect import get_client

    complete = True
    for path in sorted(_folder(project).glob("*.json")):
        missed = Missed(**json.loads(path.read_bytes()))
        with get_client(sync_client=True) as client:
            complete &= _tell(client, missed)
        path.unlink()
    return complete


def crash_leftovers(project: Project, *, tag: str | None = None) -> int:
    """Tell what was missed, then set this project's unfinished runs to CRASHED; return how many.

    ``tag``: of the flow runs meant, the project's own by default. Their processes are dead: a
    SIGKILL leaves flow and task runs RUNNING for ever.
    """
    from prefect import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
        FlowRunFilterTags,
        TaskRunFilter,
        TaskRunFilterState,
        TaskRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    tell_missed(project)
    state: Any = Crashed(message="its process died; found by the next run")
    unfinished = [StateType.RUNNING, StateType.CANCELLING]
    mine = FlowRunFilterTags(all_=[tag or project_tag(project)])
    flows = FlowRunFilter(
        tags=mine, state=FlowRunFilterState(type=FlowRunFilterStateType(any_=unfinished))
    )
    tasks = TaskRunFilter(
        state=TaskRunFilterState(type=TaskRunFilterStateType(any_=[*unfinished, StateType.PENDING]))
    )
    with get_client(sync_client=True) as client:
        # Task runs first, and of all flow runs: earlier versions ended only the flow runs.
        for task_run in client.read_task_runs(
            flow_run_filter=FlowRunFilter(tags=mine), task_run_filter=tasks, limit=_PAGE
        ):
            client.set_task_run_state(task_run.id, state, force=True)
        runs = client.read_flow_runs(flow_run_filter=flows)
        for run in runs:
            client.set_flow_run_state(run.id, state, force=True)
    return len(runs)


def _tell(client: SyncPrefectClient, missed: Missed) -> bool:
    from prefect.exceptions import ObjectNotFound

    try:
        run = client.read_flow_run(UUID(missed.flow_run))
    except ObjectNotFound:
        return False
    complete = True
    for task_run, state in missed.task_runs.items():
        try:
            known = client.read_task_run(UUID(task_run))
        except ObjectNotFound:
            complete = False
            continue
        if known.state is None or not known.state.is_final():
            client.set_task_run_state(known.id, _state(state), force=True)
    if run.state is None or run.state.type.value != missed.state:
        client.set_flow_run_state(run.id, _state(missed.state, complete), force=True)
    return complete


def _state(name: str, complete: bool = True) -> Any:
    from prefect.client.schemas.objects import State, StateType

    missing = "" if complete else "; the records of some of its tasks are lost"
    message = f"told afterwards: the server was away when it ended{missing}"
    return State(type=StateType(name), name=name.capitalize(), message=message)


def _folder(project: Project) -> Path:
    return project.state / "prefect-missed"
