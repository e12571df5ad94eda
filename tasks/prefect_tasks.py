"""The Prefect tasks of a run: follow the work, one task a stage, keep records, show results."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.runtime import flow_run, task_run

from lapvqa.lineage import drawing, runs
from lapvqa.project import Project
from lapvqa.report import freshness
from lapvqa.uptodate.stagefile import LockedStage
from tasks import ledger_lines, results, settling
from tasks.dvc_repository import StageNode
from tasks.ledger_lines import Ids
from tasks.mlflow_records import spool
from tasks.mlflow_records.connection import public
from tasks.prefect_calls import ProgressBar, attempt, run_log
from tasks.session import Session, current, pipeline_task
from tasks.work import StageAtWork, Work


@pipeline_task(name="read graph")
def read_graph() -> list[str]:
    """Return the stages of DVC's graph in the order in which they run."""
    order: list[str] = at_work().graph.result()
    return order


@pipeline_task(name="find stale stages")
def find_stale() -> dict[str, str]:
    """Return the stages that may have to run, each with the reason."""
    work = at_work()
    stale = {name: work.stages[name].reason for name in work.stale.result()}
    for name in current().graph:
        run_log().info("%s: %s", name, stale.get(name, "up to date"))
    return stale


@pipeline_task(name="stage", task_run_name="{name}")
def run_stage(name: str, reason: str = "") -> str:
    """Follow one stage at work and keep its records; return "ran" or "up to date".

    Raises what the stage raised. ``reason`` is for Prefect, which shows it.
    """
    session, one = current(), at_work().stages[name]
    one.is_followed = True
    node, tags = one.node, _begin_tags(session, name)
    # An always-changed stage may find nothing new, which is no work to keep records of.
    child = (
        None
        if node.always_changed
        else session.records.begin(name, node.params, tags, started=one.began)
    )
    ids = Ids(flow_run.id, task_run.id, child, session.records.pipeline_run)
    ledger_lines.keep_ids(session.project, name, one.token, ids)
    try:
        _pass_on(one)
        ended = one.ended.result()
    except BaseException as error:
        interrupted = not isinstance(error, Exception)
        if node.always_changed:
            session.records.begin(name, node.params, tags, started=one.began)
        status = spool.KILLED if interrupted else spool.FAILED
        session.records.end(name, status, tags={}, inputs={}, metrics={})
        ledger_lines.tell_failure(
            session.project, name,
            began=one.began, outcome=runs.INTERRUPTED if interrupted else runs.FAILED,
            params=node.params, commit=session.commit, ids=ids, seconds=time.time() - one.began,
        )  # fmt: skip
        raise
    if ended.outcome.status != "ran":
        session.records.discard(name)
        return ended.outcome.status
    if node.always_changed:
        child = session.records.begin(name, node.params, tags, started=one.began)
        ids = replace(ids, mlflow_run=child, mlflow_pipeline_run=session.records.pipeline_run)
    after = ended.locks[name]
    session.records.end(
        name,
        spool.FINISHED,
        ended=ended.at,
        tags=_end_tags(after),
        inputs=after.deps,
        metrics=results.metric_values(session.project.root, node.outs),
        pictures=_pictures(session.project, node),
    )
    ledger_lines.tell(
        session.project, name, ended.locks,
        began=one.began, seconds=ended.outcome.seconds, commit=session.commit, ids=ids,
    )  # fmt: skip
    return ended.outcome.status


def at_work() -> Work:
    """Return the work that the tasks of this run follow."""
    work = current().work
    assert work is not None
    return work


def _pass_on(one: StageAtWork) -> None:
    """Give Prefect what the stage says, until it has ended."""
    told, bar = run_log(), None
    try:
        for said in one.said():
            if isinstance(said, tuple):
                told.log(*said)
                continue
            name = one.node.name
            bar = bar or ProgressBar(f"progress-{_key(name)}", f"{name}: {said['unit']}")
            bar.show(100.0 * said["done"] / max(said["total"], 1))
    finally:
        if bar is not None:
            bar.stop()


@pipeline_task(name="record lineage")
def record_lineage() -> list[str]:
    """Complete the ledger with what ran outside of the pipeline; return those stages."""
    session = current()
    added = ledger_lines.complete(session.project, session.commit)
    settling.remember(session.project, run_log().warning)
    drawing.write_page(session.project)
    freshness.write_page(session.project)
    return added


@pipeline_task(name="register encoder")
def register_encoder() -> str | None:
    """Register the exported encoder with MLflow, once per set of weights; return its version."""
    session = current()
    version: str | None = session.records.attempt(
        lambda store: settling.register(session.project, store)
    )
    session.settled = session.records.store is not None
    return version


@pipeline_task(name="publish results")
def publish_results() -> int:
    """Show the result table, the report page and the MLflow run in Prefect; return the rows."""
    session = current()
    rows = results.result_rows(session.project)
    attempt(lambda: _show_results(session, rows))
    return len(rows)


def _show_results(session: Session, rows: list[dict[str, str]]) -> None:
    if rows:
        create_table_artifact(rows, key="results", description="Metrics with intervals by patient")
    page = session.project.report_page
    if page.exists():
        create_link_artifact(page.as_uri(), key="report", description="The report page")
    run, store = session.records.pipeline_run, session.records.store
    if run and store:
        address = public(store.uri)
        served = address if address.startswith("http") else "http://127.0.0.1:5000"
        create_link_artifact(
            f"{served}/#/experiments/{store.experiment}/runs/{run}",
            key="mlflow-run",
            description=f"The run in MLflow (embedded: mlflow ui --backend-store-uri {address})",
        )


def _begin_tags(session: Session, name: str) -> dict[str, str]:
    return {
        **session.tags(name),
        "prefect.flow_run_id": str(flow_run.id),
        **({spool.FLOW_NAME: session.flow_name} if session.flow_name else {}),
        "prefect.task_run_id": str(task_run.id),
    }


def _pictures(project: Project, node: StageNode) -> Path | None:
    """Return the folder of pictures, if it is an output of this stage."""
    relative = project.pictures_dir.relative_to(project.root).as_posix()
    return project.pictures_dir if relative in node.outs else None


def _end_tags(lock: LockedStage) -> dict[str, str]:
    deps = {f"dvc.dep.{path}": md5 for path, md5 in lock.deps.items()}
    return deps | {f"dvc.out.{path}": md5 for path, md5 in lock.outs.items()}


def _key(stage: str) -> str:
    """Return a stage's name in the letters that Prefect's artifact keys allow."""
    return re.sub(r"[^a-z0-9]+", "-", stage.lower()).strip("-")
