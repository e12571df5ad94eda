"""Ingest's files read by the workers of a Dask cluster, one Prefect task per future shard.

The stage itself runs afterwards as always, finds every file known, and writes the tables: what
comes out is the same with and without a cluster.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import as_completed

from lapvqa import extras, storage
from lapvqa.job import open_job
from lapvqa.params import load_params
from lapvqa.project import Project
from lapvqa.recorder import Recorder
from tasks.session import current

_RETRIES = 3


@task(name="read files", retries=_RETRIES, cache_policy=NO_CACHE, persist_result=False)
def read_files(root: str, name: str) -> int:
    """Read one group of files, on a worker of the cluster; return their number."""
    from lapvqa.ingest.cluster import read_group

    with tempfile.TemporaryDirectory() as scratch:
        recorder = Recorder(Path(scratch) / "record.jsonl", stage="ingest")
        try:
            project = Project(Path(root))
            params = load_params(project.params).ingest
            return read_group(params, open_job(project, recorder), name)
        finally:
            recorder.close()


def read_ahead() -> int:
    """Read the new files on the cluster that local.yaml names; return their number."""
    session = current()
    project, scheduler = session.project, session.machine.execution.dask_scheduler
    prefect_dask = extras.optional(
        "prefect_dask", needed_for="local.yaml: execution.engine is dask, which, on every worker,"
    )
    runner = prefect_dask.DaskTaskRunner(address=scheduler)
    on_dask = flow(name="ingest-on-dask", task_runner=runner, persist_result=False)
    with storage.lock(project.work_dir("ingest").with_suffix(".lock"), what="stage ingest"):
        return on_dask(_read_groups)(str(project.root))


def _read_groups(root: str) -> int:
    from lapvqa.ingest.cluster import write_groups

    session = current()
    recorder = Recorder(session.project.record("ingest"), stage="ingest")
    try:
        names = write_groups(
            load_params(session.project.params).ingest, open_job(session.project, recorder)
        )
    finally:
        recorder.close()
    session.display.say(f"ingest: {len(names)} groups of files for the Dask cluster")
    futures = [read_files.submit(root, name) for name in names]
    done = 0
    for future in as_completed(futures):
        done += future.result()
    if names:
        session.display.say(f"ingest: {done} files were read on the cluster")
    return done
