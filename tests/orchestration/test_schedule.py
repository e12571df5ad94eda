"""The process that waits for a cause, its death and its end; and a Prefect server not ours."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from running_toy import Toy, wait_until

from lapvqa.lineage import ledger
from lapvqa.retraining import minutes, wanted

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# Once a year: the rounds of this test are asked for, not waited for.
KEEPER = """
import sys
from flows import cli
from flows.commands import schedule
schedule.LOOK_S = 0.5
raise SystemExit(cli.main(["schedule", "--cron", "0 3 1 1 *", "--zone", "Europe/Berlin"]))
"""
SERVER = """
import time
from pathlib import Path
from lapvqa.project import Project
from tasks.prefect_server import start_server_early
server = start_server_early(Project(Path.cwd()), services="schedule")
server.wait()
print(server.url, flush=True)
time.sleep(600)
"""


class Keeper:
    """A schedule kept by a process of its own."""

    def __init__(self, toy: Toy) -> None:
        self.toy, self.log = toy, toy.root / f"keeper-{time.monotonic_ns()}.log"
        with self.log.open("w") as handle:
            self.process = subprocess.Popen(
                [sys.executable, "-c", KEEPER],
                cwd=toy.root, env=toy.environment, stdout=handle, stderr=subprocess.STDOUT,
            )  # fmt: skip

    @property
    def text(self) -> str:
        return self.log.read_text()

    def waits_for(self, text: str, *, seconds: float = 150) -> None:
        wait_until(lambda: text in self.text or self.process.poll() is not None, seconds=seconds)
        assert text in self.text, self.text

    def ends_by(self, sign: signal.Signals) -> float:
        """Send a signal; return the seconds until it has ended well and left nothing behind."""
        began = time.monotonic()
        self.process.send_signal(sign)
        assert self.process.wait(timeout=60) == 0, self.text
        assert "the schedule has ended" in self.text
        wait_until(lambda: not self.toy.processes(), seconds=60)
        return time.monotonic() - began


def test_a_schedule_waits_and_runs_alone_dies_and_goes_on(new_toy: Callable[[], Toy]) -> None:
    """One story, since each start costs seconds: refused, killed, resumed, interrupted."""
    toy = new_toy()
    keeper = Keeper(toy)
    keeper.waits_for("by crontab")
    assert re.search(r"next \(Europe/Berlin\): \d{4}-01-01 03:00, ", keeper.text), keeper.text
    second = Keeper(toy)
    assert second.process.wait(timeout=60) == 4, second.text
    assert "the schedule of this project is already running: process" in second.text

    toy.trouble("pretrain hang")
    wanted.want(toy.project, "hand", who="test")
    hanging = toy.root / ".lapvqa" / "pids"
    wait_until(hanging.exists)
    keeper.process.kill()
    keeper.process.wait()
    wait_until(lambda: not toy.processes(), seconds=60)
    hanging.unlink()

    again = Keeper(toy)
    again.waits_for("resume: a round was cut off and is taken up again")
    wait_until(hanging.exists)
    assert again.ends_by(signal.SIGTERM) < 60
    toy.trouble("")

    third = Keeper(toy)
    wait_until(lambda: minutes.rounds(toy.project) or third.process.poll() is not None)
    (told,) = minutes.rounds(toy.project)
    assert (told["outcome"], [one["cause"] for one in told["causes"]]) == ("trained", ["hand"])
    assert toy.project.report_page.exists()
    dated = [line for line in third.text.splitlines() if re.match(r"\d{4}-\d\d-\d\d \d\d:", line)]
    assert any("pretrain" in line for line in dated), third.text
    wait_until(lambda: not toy.project.round_lease.exists(), seconds=20)
    assert not toy.project.wanted.exists()
    assert third.ends_by(signal.SIGINT) < 60


@pytest.fixture(scope="module")
def served(new_toy: Callable[[], Toy]) -> Iterator[str]:
    """The address of a Prefect server that belongs to another project."""
    toy = new_toy()
    with subprocess.Popen(
        [sys.executable, "-c", SERVER],
        cwd=toy.root, env=toy.environment, stdout=subprocess.PIPE, text=True,
    ) as keeper:  # fmt: skip
        assert keeper.stdout is not None
        yield keeper.stdout.readline().strip()
        keeper.kill()


def ask(url: str, question: dict[str, Any] | None = None) -> Any:
    data = None if question is None else json.dumps(question).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def test_a_served_prefect_takes_the_runs_of_another_project(
    served: str, new_toy: Callable[[], Toy]
) -> None:
    api = served
    other = new_toy()
    (other.root / "local.yaml").write_text(f"servers:\n  prefect_api_url: {api}\n")
    run = other.run("inventory")
    assert run.code == 0, run.text
    assert f"Prefect: served, {api}" in run.text
    assert not other.project.prefect_home.exists()
    found = ask(f"{api}/flow_runs/{run.result['prefect']}")
    assert (found["state_type"], found["parameters"]) == ("COMPLETED", {"root": str(other.root)})


def test_projects_share_a_server_by_name(served: str, new_toy: Callable[[], Toy]) -> None:
    toys = [new_toy(), new_toy()]
    for toy in toys:
        (toy.root / "local.yaml").write_text(f"servers:\n  prefect_api_url: {served}\n")
        toy.command(sys.executable, "-m", "flows", "schedule", "deploy")
    toys[0].command(sys.executable, "-m", "flows", "schedule", "pause")
    found = ask(f"{served}/deployments/filter", {})
    paused = {one["parameters"]["root"]: one["paused"] for one in found}
    assert paused == {str(toys[0].root): True, str(toys[1].root): False}
    assert len({one["name"] for one in found}) == 2
    assert {one["work_pool_name"] for one in found} == {"lapvqa"}
    options = [one["concurrency_options"]["collision_strategy"] for one in found]
    assert options == ["CANCEL_NEW", "CANCEL_NEW"]
    # A worker takes it up, and the decision is on record.
    worker = subprocess.Popen(
        [sys.executable, "-m", "prefect", "worker", "start", "--pool", "lapvqa", "--limit", "1"],
        cwd=toys[1].root, env={**toys[1].environment, "PREFECT_API_URL": served},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deployment = next(one for one in found if not one["paused"])
        now = {"state": {"type": "SCHEDULED"}}
        run = ask(f"{served}/deployments/{deployment['id']}/create_flow_run", now)["id"]
        wait_until(lambda: ask(f"{served}/flow_runs/{run}")["state_type"] == "COMPLETED")
    finally:
        worker.terminate()
        worker.wait(timeout=60)
    said = [entry.payload for entry in ledger.entries(toys[1].project) if entry.payload]
    assert [one["answer"] for one in said] == ["nothing"]


def test_a_served_prefect_that_is_down_is_replaced_and_said(tmp_path: Path) -> None:
    (tmp_path / "local.yaml").write_text("servers:\n  prefect_api_url: http://127.0.0.1:9/api\n")
    code = """
        from pathlib import Path
        from lapvqa.project import Project
        from tasks.prefect_server import start_server_early
        print(start_server_early(Project(Path.cwd())).describe())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == (
        "Prefect: embedded (the Prefect server at http://127.0.0.1:9/api does not answer), "
        "history in .lapvqa/prefect"
    )
