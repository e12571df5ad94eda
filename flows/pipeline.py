"""The Prefect flows: the whole pipeline, and one flow per stage.

Importing this module imports Prefect: ``flows.commands.run`` starts the server before.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect import Flow, flow
from prefect.runtime import flow_run

from lapvqa.runtime import die_with_parent
from lapvqa.uptodate import staleness
from tasks import dvc_repository, prefect_history, prefect_private, results, settling
from tasks.dvc_repository import StageNode
from tasks.mlflow_records import spool
from tasks.prefect_calls import kept
from tasks.prefect_tasks import (
    find_stale,
    publish_results,
    read_graph,
    record_lineage,
    register_encoder,
    run_stage,
)
from tasks.session import Session, current, opened
from tasks.side_by_side import at_once, run_all


@flow(name="pipeline", persist_result=False)
@kept
def pipeline(root: str = ".") -> dict[str, str]:
    """Bring every stage of the project in ``root`` up to date; return stage -> status.

    Raises the error of the first stage that fails; what is done stays done, and the next run
    continues there.
    """
    with recorded(root):
        order = read_graph()
        statuses = _run_stale(order)
        record_lineage()
        register_encoder()
        publish_results()
    return {name: statuses.get(name, "up to date") for name in order}


def make_stage_flow(stage: str) -> Flow[..., dict[str, str]]:
    """Make the flow that brings one stage, and all it stands on, up to date.

    ``evaluate@rrg`` becomes ``evaluate-rrg``.
    """

    @kept
    def one_stage(root: str = ".") -> dict[str, str]:
        with recorded(root):
            order = read_graph()
            needed = [name for name in order if name == stage or name in _upstream(stage)]
            statuses = _run_stale(needed)
            if stage not in statuses:
                statuses[stage] = run_stage(stage, "asked for")
            record_lineage()
            register_encoder()
        return statuses

    one_stage.__doc__ = f"Bring stage {stage} of the project in ``root`` up to date."
    decorate: Callable[..., Any] = flow(name=stage.replace("@", "-"), persist_result=False)
    made: Flow[..., dict[str, str]] = decorate(one_stage)
    return made


def _run_stale(stages: Sequence[str]) -> dict[str, str]:
    """Run those of ``stages``, in the graph's order, that are stale; return stage -> status."""
    # What an always-changed stage without inputs finds (the inventory) decides the rest.
    current().wanted = list(stages)
    first = [name for name in stages if _looks_around(name)]
    statuses = dict.fromkeys(first, "up to date")
    statuses |= {name: run_stage(name, "looks for new files") for name in _to_look(first)}
    stale = {name: why for name, why in find_stale(first).items() if name in stages}

    def work(name: str) -> str:
        prepare(name)
        return run_stage(name, stale[name])

    with dvc_repository.same_order(current().project, list(current().graph)):
        return statuses | run_all(
            list(stale), {name: _upstream(name) for name in stale}, work,
            limit=at_once(current().machine), stop=current().stop,
        )  # fmt: skip


def _upstream(stage: str) -> set[str]:
    """Return all stages that ``stage`` stands on, directly or not."""
    direct = current().graph[stage].upstream
    return set(direct).union(*map(_upstream, direct))


def prepare(stage: str) -> None:
    """Do what a stage may have done for it beforehand on other machines."""
    if stage == "ingest" and current().machine.execution.engine == "dask":
        from tasks.ingest_on_dask import read_ahead

        read_ahead()


@contextmanager
def recorded(root: str) -> Iterator[Session]:
    """Open the session of a flow run, and close its MLflow records as it ends."""
    if multiprocessing.parent_process() is not None:  # started by a schedule's process
        die_with_parent()
    with opened(Path(root)) as session, prefect_private.without_tags():
        session.flow_run, session.flow_name = flow_run.id or "", flow_run.name or ""
        session.records.open()
        settling.owe(session.project)
        status, session.ended = spool.KILLED, prefect_history.CRASHED
        try:
            yield session
            status, session.ended = spool.FINISHED, prefect_history.COMPLETED
        except Exception:
            status, session.ended = spool.FAILED, prefect_history.FAILED
            raise
        finally:
            folder, done = session.project.root, _done(session, status)
            session.records.close(
                status, results.main_metrics(folder, done), results.main_note(folder, done)
            )
            if status == spool.FINISHED:
                settling.close(session.project, registered=session.settled)


def _done(session: Session, status: str) -> list[StageNode]:
    """Return the stages that are up to date as the run ends."""
    broken = {"failed", "interrupted"}
    names = [outcome.name for outcome in session.outcomes if outcome.status not in broken]
    return [session.graph[name] for name in (session.wanted if status == spool.FINISHED else names)]


def _to_look(names: list[str]) -> list[str]:
    """Return those that may find something new: a listing here spares a stage's whole process."""
    if not current().project.inventory("source").exists():
        return names  # nothing to compare with
    seen = {state.name: state.stale for state in staleness.check(current().project)}
    return [name for name in names if seen.get(name, True)]


def _looks_around(name: str) -> bool:
    node = current().graph[name]
    return node.always_changed and not node.upstream
