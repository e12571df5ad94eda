"""The Prefect flows: the whole pipeline, and one flow per stage.

Importing this module imports Prefect: ``flows.commands.run`` starts the server before.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any

from prefect import Flow, flow
from prefect.runtime import flow_run

from lapvqa.runtime import die_with_parent
from tasks import prefect_private, results, settling
from tasks.dvc_repository import StageNode
from tasks.mlflow_records import spool
from tasks.prefect_calls import kept
from tasks.prefect_tasks import (
    at_work,
    find_stale,
    publish_results,
    read_graph,
    record_lineage,
    register_encoder,
    run_stage,
)
from tasks.session import Session, current, opened
from tasks.work import working


@flow(name="pipeline", persist_result=False)
@kept
def pipeline(root: str = ".") -> dict[str, str]:
    """Bring every stage of the project in ``root`` up to date; return stage -> status.

    Raises the error of the first stage that fails; what is done stays done, and the next run
    continues there.
    """
    with recorded(root):
        order = read_graph()
        statuses = _follow()
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
        with recorded(root, stage):
            read_graph()
            statuses = _follow()
            record_lineage()
            register_encoder()
        return statuses

    one_stage.__doc__ = f"Bring stage {stage} of the project in ``root`` up to date."
    decorate: Callable[..., Any] = flow(name=stage.replace("@", "-"), persist_result=False)
    made: Flow[..., dict[str, str]] = decorate(one_stage)
    return made


def _follow() -> dict[str, str]:
    """Follow the work to its end, each stage by a task in a thread; return stage -> status."""
    work = at_work()
    work.flow.set_result(copy_context())
    statuses = _follow_all(work.looks.result())
    statuses |= _follow_all(list(find_stale()))
    work.finish()
    return statuses


def _follow_all(names: Sequence[str]) -> dict[str, str]:
    """Follow these stages, those that begin; raise the first failure in their order.

    The records of a stage come after those of the stages above it, to which they point.
    """
    stages = at_work().stages
    following: dict[str, Future[str | None]] = {}

    def follow(name: str) -> str | None:
        wait([following[above] for above in stages[name].node.upstream if above in following])
        begins = stages[name].begins.result()
        return run_stage(name, stages[name].reason) if begins else None

    if not names:
        return {}
    with ThreadPoolExecutor(len(names), thread_name_prefix="follow") as pool:
        for name in names:
            following[name] = pool.submit(copy_context().run, follow, name)
        try:
            wait(following.values())
        except BaseException:
            current().stop.set()
            raise
    statuses = {name: future.result() for name, future in following.items()}
    return {name: status for name, status in statuses.items() if status is not None}


@contextmanager
def recorded(root: str, stage: str | None = None) -> Iterator[Session]:
    """Open the session of a flow run, and close its MLflow records as it ends.

    Its work (all stages, or ``stage`` and what it stands on) is begun, unless it is at work.
    """
    if multiprocessing.parent_process() is not None:  # started by a schedule's process
        die_with_parent()
    with opened(Path(root)) as session, prefect_private.without_tags(), working(session, stage):
        session.flow_run, session.flow_name = flow_run.id or "", flow_run.name or ""
        session.records.open()
        status = spool.KILLED
        try:
            yield session
            status = spool.FINISHED
        except Exception:
            status = spool.FAILED
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
