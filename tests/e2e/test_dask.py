"""Ingest over a real Dask cluster, one of whose workers is killed: the same bytes come out."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import migrated_stores
import pytest
from conftest import Scratch, change
from others_at_work import files_below

from lapvqa import storage
from lapvqa.project import Project

pytestmark = [pytest.mark.slow]


@contextmanager
def cluster(project: Scratch, workers: int) -> Iterator[tuple[str, list[subprocess.Popen[str]]]]:
    """A scheduler and its workers on loopback, each a process of its own."""
    processes: list[subprocess.Popen[str]] = []

    def start(*command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *command],
            cwd=project.root,
            env=project.environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    try:
        scheduler = start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        address = ""
        assert scheduler.stderr is not None
        for line in scheduler.stderr:
            if found := re.search(r"tcp://127\.0\.0\.1:\d+", line):
                address = found[0]
                break
        started = [
            start("worker", address, "--no-nanny", "--nthreads", "1", "--no-dashboard")
            for _ in range(workers)
        ]
        yield address, started
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate()


def digests(project: Scratch) -> dict[str, str]:
    files = sorted(path for path in (project.root / "data").rglob("*") if path.is_file())
    return {str(path.relative_to(project.root)): storage.sha256_file(path) for path in files}


def test_a_cluster_that_loses_a_worker_gives_what_one_machine_gives(
    new_project: Callable[[], Scratch], tmp_path_factory: pytest.TempPathFactory
) -> None:
    local, spread = new_project(), new_project()
    migrated_stores.give(tmp_path_factory, Project(spread.root))
    for project in (local, spread):
        change(project.root / "params.yaml", {"ingest": {"shard_images": 4}})
    for stage in ("inventory", "ingest"):
        local.run(sys.executable, "-m", "lapvqa.stage", stage)
    with cluster(spread, 2) as (address, workers):
        (spread.root / "local.yaml").write_text(
            f"workers: 1\nexecution:\n  engine: dask\n  dask_scheduler: {address}\n"
        )
        run = subprocess.Popen(
            [str(Path(sys.executable).parent / "lapvqa"), "run", "--stage", "ingest"],
            cwd=spread.root, env=spread.environment, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        work = spread.root / ".lapvqa/work/ingest"
        while run.poll() is None and len(files_below(work, "rows-*.parquet")) < 2:
            time.sleep(0.01)
        workers[0].kill()
        output, _ = run.communicate(timeout=240)
    assert run.returncode == 0, output
    assert "files were read on the cluster" in output
    log = (spread.root / ".lapvqa/logs/ingest.log").read_text()
    assert "known from before, 0 new" in log
    assert digests(spread) == digests(local)
