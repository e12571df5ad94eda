"""The same bytes by another way than one quiet run: killed, gone on with, ended by `dvc repro`.

A file of its own, so that another process can run it: with test_pipeline.py it takes half of all.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import BIN, Scratch
from ruamel.yaml import YAML

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

KILLS = int(os.environ.get("LAPVQA_KILLS", "3"))


@pytest.fixture
def _orphans_stay_zombies() -> Iterator[None]:
    """Wait for no orphan until the end, as in a container whose first process is no init."""
    subreaper = 36  # PR_SET_CHILD_SUBREAPER
    libc = ctypes.CDLL(None)
    libc.prctl(subreaper, 1, 0, 0, 0)
    yield
    libc.prctl(subreaper, 0, 0, 0, 0)
    for child in psutil.Process().children():
        if child.status() == psutil.STATUS_ZOMBIE:
            os.waitpid(child.pid, 0)


@pytest.mark.usefixtures("_orphans_stay_zombies")
def test_killed_at_random_moments_and_ended_by_dvc_alone_it_has_the_same_bytes(
    new_project: Callable[[], Scratch], request: pytest.FixtureRequest
) -> None:
    project = new_project()
    seed = int(os.environ.get("LAPVQA_KILL_SEED", "0"))
    moments = random.Random(seed)
    for _ in range(KILLS):
        process = subprocess.Popen(
            [str(BIN / "lapvqa"), "run"], cwd=project.root, env=project.environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(moments.uniform(1, 35))
        process.send_signal(signal.SIGKILL)
        process.wait()
    project.lapvqa("run", "--stage", "pretrain")  # mends what the last kill has cut off
    project.run(str(BIN / "dvc"), "repro")
    # Asked for now: another process of the tests has made it meanwhile.
    finished: Scratch = request.getfixturevalue("finished")
    # Those side by side stand in the order in which they had ended, which a whole run puts right.
    assert stages(project) == stages(finished)
    for name in _outputs(finished.root):
        same = (project.root / name).read_bytes() == (finished.root / name).read_bytes()
        assert same, name


def stages(project: Scratch) -> dict[str, Any]:
    return dict(YAML(typ="safe").load(project.lock)["stages"])


def _outputs(root: Path) -> list[Path]:
    return [
        path.relative_to(root)
        for folder in ("data", "models", "results", "reports")
        for path in sorted((root / folder).rglob("*"))
        # The graph and the time line are drawn after a run, with its ids and times: no outputs.
        if path.is_file() and path.name not in (".gitignore", "lineage.html", "freshness.html")
    ]
