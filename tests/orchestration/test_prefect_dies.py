"""A Prefect server that dies while a stage runs: the work goes on, and its history is told."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient
from others_at_work import free_port, is_called
from running_toy import Finished, Toy, wait_until

from lapvqa.lineage import recording
from lapvqa.project import Project
from lapvqa.uptodate.stagefile import locked
from tasks.prefect_calls import History, kept, through
from tasks.prefect_server import Server

pytestmark = [pytest.mark.slow]


class PrefectServer:
    """One that is somebody else's: on a port and with a database that outlive it."""

    def __init__(self, toy: Toy) -> None:
        self._toy, self._port = toy, free_port()
        self.uri = f"http://127.0.0.1:{self._port}/api"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", self._port))
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "tasks.prefect_server",
                    str(os.getpid()), str(listener.fileno()), "run",
                ],
                env={**self._toy.environment, "PREFECT_HOME": str(self._toy.project.prefect_home)},
                pass_fds=(listener.fileno(),), stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
        wait_until(self._answers)

    def kill(self) -> None:
        """Kill it as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _answers(self) -> bool:
        with suppress(OSError):
            urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()
            return True
        return False


def embedded_server(toy: Toy) -> psutil.Process | None:
    found = [one for one in toy.processes() if is_called(one, "tasks.prefect_server")]
    return found[0] if found else None


def begin(toy: Toy) -> subprocess.Popen[str]:
    """Start a run whose stage ``tokens`` is at work and waits."""
    params = toy.project.params
    params.write_text(params.read_text().replace("max_length: 64", "max_length: 65"))
    toy.trouble("tokens wait")
    process = toy.start("tokens")
    wait_until((toy.project.state / "waiting").exists)
    wait_until(lambda: toy.is_followed("tokens"))
    return process


def end(toy: Toy, process: subprocess.Popen[str]) -> Finished:
    began = time.monotonic()
    (toy.project.state / "go").touch()
    text = process.communicate(timeout=280)[0]
    return Finished(process.returncode, text, time.monotonic() - began)


def check_everybody_agrees(toy: Toy, run: Finished) -> None:
    """DVC, the ledger and MLflow say that the stage is done, by the same run."""
    assert run.code == 0, run.text
    assert run.result["stages"]["tokens"] == "ran"
    assert locked(toy.project)["tokens"].params["tokens"]["max_length"] == 65
    told = recording.told(toy.project)[-1]
    assert (told.stage, told.outcome) == ("tokens", "finished")
    client = MlflowClient(tracking_uri=f"sqlite:///{toy.project.mlflow_db}")
    parent = client.get_run(run.result["mlflow"])
    assert parent.info.status == "FINISHED"
    assert client.get_run(str(told.mlflow_run)).info.status == "FINISHED"
    assert "Traceback" not in run.text
    assert "Error logging" not in run.text


def states(toy: Toy, run: Finished) -> set[str]:
    """Return the states of the flow run and of its task runs in Prefect's database."""
    flow = run.result["prefect"].replace("-", "")
    tasks = "select state_type from task_run where replace(flow_run_id, '-', '')"
    flows = "select state_type from flow_run where replace(id, '-', '')"
    return {state for query in (tasks, flows) for (state,) in toy.history(f"{query} = '{flow}'")}


def test_embedded_the_server_comes_back_and_knows_everything(copied: Toy) -> None:
    process = begin(copied)
    first = embedded_server(copied)
    assert first is not None
    first.kill()
    wait_until(lambda: embedded_server(copied) not in (None, first))
    run = end(copied, process)
    check_everybody_agrees(copied, run)
    assert "incomplete" not in run.text
    assert states(copied, run) == {"COMPLETED"}


def test_without_any_server_the_work_is_done_and_recorded(copied: Toy) -> None:
    for path in copied.project.prefect_home.glob("prefect.db*"):
        path.unlink()
    (copied.project.prefect_home / "prefect.db").write_bytes(b"no database at all" * 1000)
    params = copied.project.params
    params.write_text(params.read_text().replace("max_length: 64", "max_length: 65"))
    run = copied.run("tokens")
    check_everybody_agrees(copied, run)
    assert run.result["prefect"] == ""
    assert "Prefect will know nothing of this run" in run.text
    assert "Warning" not in run.text


def test_any_flow_is_run_without_a_server(tmp_path: Path) -> None:
    from prefect import flow  # not above: it reads its settings on import

    from tasks.prefect_flow import run_flow

    gone = subprocess.Popen(["true"])
    gone.wait()
    (tmp_path / "server.log").touch()
    server = Server("http://127.0.0.1:9/api", tmp_path, "run", process=gone)
    said: list[str] = []
    worked = flow(lambda root: f"done in {root}", name="any")
    told = run_flow(
        worked, Project(tmp_path), server, History(), tag="any", say=said.append, about="MLflow"
    )
    assert told == f"done in {tmp_path}"
    assert ["Prefect will know nothing of this run" in line for line in said] == [True]


@pytest.fixture
def served(copied: Toy) -> Iterator[PrefectServer]:
    server = PrefectServer(copied)
    server.start()
    copied.project.local.write_text(f"servers:\n  prefect_api_url: {server.uri}\n")
    yield server
    server.kill()


def test_served_the_work_goes_on_and_the_next_run_tells_how_it_ended(
    copied: Toy, served: PrefectServer
) -> None:
    process = begin(copied)
    served.kill()
    run = end(copied, process)
    check_everybody_agrees(copied, run)
    assert "Prefect: served" in run.text
    assert "Prefect's history of this run is incomplete" in run.text
    assert "RUNNING" in states(copied, run)
    assert run.seconds < 120

    served.start()
    again = copied.run("tokens")
    assert again.code == 0, again.text
    assert states(copied, run) == {"COMPLETED"}


def work(outcome: Callable[[], int], begins: bool, breaks: bool) -> tuple[object, list[str]]:
    """Send ``outcome`` through an engine that breaks, before or after the work, or does not."""
    lost: list[str] = []
    calls: list[int] = []

    @kept
    def function() -> int:
        calls.append(1)
        return outcome()

    def engine() -> int:
        if not begins:
            raise ConnectionError("away")
        try:
            return function()
        finally:
            if breaks:
                raise ConnectionError("away")

    try:
        return through(engine, function, lost.append), lost
    except BaseException as error:  # noqa: BLE001 - what came out is what is asked
        return error, lost
    finally:
        assert len(calls) == 1, "the work is done once"


@pytest.mark.parametrize(("begins", "breaks"), [(True, False), (True, True), (False, False)])
def test_the_outcome_is_that_of_the_work_whatever_the_engine_does(
    begins: bool, breaks: bool
) -> None:
    is_lost = breaks or not begins
    assert work(lambda: 3, begins, breaks) == (3, ["ConnectionError: away"] * is_lost)
    for error in (ValueError("own"), KeyboardInterrupt()):

        def fail(error: BaseException = error) -> int:
            raise error

        assert work(fail, begins, breaks) == (error, ["ConnectionError: away"] * is_lost)
