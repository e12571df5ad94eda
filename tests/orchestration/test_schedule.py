"""The pipeline by the clock; and a Prefect server that is not ours."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import textwrap
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from running_toy import Toy, wait_until

pytestmark = [pytest.mark.slow]

# Once a year: the run of this test is asked for, not waited for.
DRIVER = """
from pathlib import Path
from flows.commands.schedule import schedule
if __name__ == "__main__":
    schedule(Path.cwd(), "0 3 1 1 *")
"""


@pytest.fixture(scope="module")
def served(new_toy: Callable[[], Toy]) -> Iterator[tuple[Toy, str]]:
    """A toy whose schedule is kept by a process of its own, and its server's address."""
    toy = new_toy()
    script, log = toy.root / ".lapvqa" / "keep.py", toy.root / ".lapvqa" / "keep.log"
    script.parent.mkdir()
    script.write_text(DRIVER)
    with log.open("w") as handle:
        keeper = subprocess.Popen(
            [sys.executable, str(script)],
            cwd=toy.root, env=toy.environment, stdout=handle, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        wait_until(lambda: "crontab" in log.read_text() or keeper.poll() is not None)
        text = log.read_text()
        assert re.search(r"next runs \(.+\): \d{4}-01-01 03:00, ", text), text
        assert re.search(r"0 3 1 1 \* cd .*lapvqa run >> ", text), text
        address = re.search(r"pages at (http://127.0.0.1:\d+)", text)
        assert address, text
        yield toy, f"{address[1]}/api"
        keeper.send_signal(signal.SIGINT)
        assert keeper.wait(timeout=30) == 0, log.read_text()
        assert "the schedule has ended" in log.read_text()
        wait_until(lambda: not toy.processes(), seconds=10)
    finally:
        keeper.kill()


def ask(url: str, question: dict[str, Any] | None = None) -> Any:
    data = None if question is None else json.dumps(question).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def runs(api: str, state: str) -> int:
    return int(ask(f"{api}/flow_runs/count", {"flow_runs": {"state": {"type": {"any_": [state]}}}}))


def test_a_schedule_plans_runs_and_runs(served: tuple[Toy, str]) -> None:
    toy, api = served
    wait_until(lambda: runs(api, "SCHEDULED") > 0, seconds=60)
    deployment = ask(f"{api}/deployments/name/pipeline/lapvqa")
    now = {"state": {"type": "SCHEDULED"}, "tags": deployment["tags"]}
    ask(f"{api}/deployments/{deployment['id']}/create_flow_run", now)
    wait_until(lambda: runs(api, "COMPLETED") + runs(api, "FAILED") > 0, seconds=150)
    assert runs(api, "COMPLETED") == 1, (toy.root / ".lapvqa" / "keep.log").read_text()
    assert toy.project.report_page.exists()
    assert toy.lock.count(b"cmd: python toy.py") == 8


def test_a_served_prefect_takes_the_runs_of_another_project(
    served: tuple[Toy, str], new_toy: Callable[[], Toy]
) -> None:
    _, api = served
    other = new_toy()
    (other.root / "local.yaml").write_text(f"servers:\n  prefect_api_url: {api}\n")
    run = other.run("inventory")
    assert run.code == 0, run.text
    assert f"Prefect: served, {api}" in run.text
    assert not other.project.prefect_home.exists()
    found = ask(f"{api}/flow_runs/{run.result['prefect']}")
    assert (found["state_type"], found["parameters"]) == ("COMPLETED", {"root": str(other.root)})


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


def test_a_bad_cron_is_the_users_error() -> None:
    from flows.commands.schedule import next_times
    from lapvqa.errors import ConfigError

    with pytest.raises(ConfigError, match="five fields"):
        next_times("every night", "UTC")


def test_times_are_this_machines() -> None:
    from flows.commands.schedule import next_times

    times = next_times("0 2 * * *", "Asia/Tokyo")
    assert [time.hour for time in times] == [2, 2, 2]
    assert {time.utcoffset().total_seconds() for time in times} == {9 * 3600.0}
