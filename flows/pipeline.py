"""The whole pipeline as one flow: look, run what is stale, keep records, show results."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run

from lapvqa.runtime import die_with_parent
from tasks import spool
from tasks.session import Session, current, opened
from tasks.stages import run_stage
from tasks.steps import find_stale, publish_results, read_graph, record_lineage, register_encoder


@flow(name="pipeline", persist_result=False)
def pipeline(root: str = ".") -> dict[str, str]:
    """Bring every stage of the project in ``root`` up to date; return stage -> status.

    Raises the error of the first stage that fails; what is done stays done, and the next run
    continues there.
    """
    with recorded(root):
        order = read_graph()
        # What an always-changed stage without inputs finds (the inventory) decides the rest.
        first = [name for name in order if _looks_around(name)]
        statuses = {name: run_stage(name, "looks for new files") for name in first}
        for name, reason in find_stale(first).items():
            prepare(name)
            statuses[name] = run_stage(name, reason)
        record_lineage()
        register_encoder()
        publish_results()
    return {name: statuses.get(name, "up to date") for name in order}


def prepare(stage: str) -> None:
    """Do what a stage may have done for it beforehand on other machines."""
    if stage == "ingest" and current().machine.execution.engine == "dask":
        from tasks.spread import read_ahead

        read_ahead()


@contextmanager
def recorded(root: str) -> Iterator[Session]:
    """Open the session of a flow run, and close its MLflow records as it ends."""
    if multiprocessing.parent_process() is not None:  # started by a schedule's process
        die_with_parent()
    with opened(Path(root)) as session:
        session.flow_run = str(flow_run.id)
        session.records.open()
        status = spool.KILLED
        try:
            yield session
            status = spool.FINISHED
        except Exception:
            status = spool.FAILED
            raise
        finally:
            session.records.close(status)


def _looks_around(name: str) -> bool:
    node = current().graph[name]
    return node.always_changed and not node.upstream
