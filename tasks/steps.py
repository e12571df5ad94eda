"""The tasks of a pipeline run that are no stage: looking, keeping records, showing results."""

from __future__ import annotations

from pathlib import Path

from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.logging import get_run_logger

from lapvqa.uptodate import staleness
from lapvqa.uptodate.stagefile import UnsupportedStagefileError
from tasks import lineage, registry, results
from tasks.dvc_graph import load_graph, stale_stages
from tasks.prefect_task import pipeline_task
from tasks.records import public
from tasks.session import current


@pipeline_task(name="read graph")
def read_graph() -> list[str]:
    """Read DVC's stage graph; return the stages in the order in which they run."""
    session = current()
    session.graph = {node.name: node for node in load_graph(session.project.root)}
    return list(session.graph)


@pipeline_task(name="find stale stages")
def find_stale(just_ran: list[str]) -> dict[str, str]:
    """Return the stages that may have to run, each with the reason; ``just_ran`` left out."""
    session = current()
    graph = list(session.graph.values())
    stale = stale_stages(session.project.root, graph, skip=frozenset(just_ran))
    for name in session.graph:
        get_run_logger().info("%s: %s", name, stale.get(name, "up to date"))
    return stale


@pipeline_task(name="record lineage")
def record_lineage() -> list[str]:
    """Complete the ledger with what ran outside of the pipeline; return those stages."""
    session = current()
    added = lineage.complete(session.project, session.commit)
    try:
        staleness.remember(session.project)
    except UnsupportedStagefileError as error:
        # Then `lapvqa run` asks DVC each time, which is slower and no less right.
        get_run_logger().warning("no quick check of what is up to date: %s", error)
    return added


@pipeline_task(name="register encoder")
def register_encoder() -> str | None:
    """Register the exported encoder with MLflow, once per set of weights; return its version."""
    session = current()
    paths = [Path(out) for node in session.graph.values() for out in node.outs]
    folders = [path.parent for path in paths if path.name == registry.WEIGHTS]
    if session.records.store is None or not folders:
        get_run_logger().info("nothing to register, or MLflow is down; the next run does it")
        return None
    folder = session.project.root / folders[0]
    found: str | None = session.records.attempt(
        lambda store: registry.register_folder(store, session.project, folder)
    )
    return found


@pipeline_task(name="publish results")
def publish_results() -> int:
    """Show the result table, the report page and the MLflow run in Prefect; return the rows."""
    session = current()
    rows = results.result_rows(session.project)
    if rows:
        create_table_artifact(rows, key="results", description="Metrics with 95 % intervals")
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
    return len(rows)
