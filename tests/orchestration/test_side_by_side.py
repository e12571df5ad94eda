"""Independent stages side by side: what waits for what, and what becomes of failures."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapvqa.machine import Execution, Machine
from lapvqa.project import Project
from tasks.dvc_repository import put_in_order
from tasks.side_by_side import at_once, run_all


@given(
    st.integers(1, 8).flatmap(
        lambda n: st.tuples(*(st.sets(st.integers(0, max(k - 1, 0))) for k in range(n)))
    ),
    st.integers(1, 4),
)
@settings(max_examples=40)
def test_each_runs_once_after_what_is_above_it_and_never_too_many(
    above: tuple[set[int], ...], limit: int
) -> None:
    names = [str(k) for k in range(len(above))]
    graph = {str(k): {str(j) for j in up if j < k} for k, up in enumerate(above)}
    guard, running, finished, most = threading.Lock(), set[str](), list[str](), [0]

    def work(name: str) -> str:
        with guard:
            assert graph[name] <= set(finished)
            running.add(name)
            most[0] = max(most[0], len(running))
        time.sleep(0.001)
        with guard:
            running.remove(name)
            finished.append(name)
        return name.upper()

    done = run_all(names, graph, work, limit=limit, stop=threading.Event())
    assert done == {name: name.upper() for name in names}
    assert sorted(finished) == names
    assert most[0] <= limit


def test_after_a_failure_what_runs_ends_and_nothing_begins() -> None:
    ended: list[str] = []
    failing = threading.Event()

    def work(name: str) -> None:
        if name == "b":
            failing.set()
            raise ValueError("b")
        failing.wait()
        time.sleep(0.05)  # until the failure is known
        ended.append(name)

    stop = threading.Event()
    with pytest.raises(ValueError, match="b"):
        run_all(["a", "b", "c", "d"], dict.fromkeys("abcd", ()), work, limit=2, stop=stop)
    assert ended == ["a"]
    assert not stop.is_set()


def test_an_interrupt_reaches_what_other_threads_run() -> None:
    stop, both = threading.Event(), threading.Barrier(2)

    def work(_: str) -> None:
        if both.wait() == 0:
            os.kill(os.getpid(), signal.SIGINT)
        stop.wait(20)

    with pytest.raises(KeyboardInterrupt):
        run_all(["a", "b"], {"a": (), "b": ()}, work, limit=2, stop=stop)
    assert stop.is_set()


def test_a_machine_says_how_many() -> None:
    assert at_once(Machine(execution=Execution(stages_at_once=3))) == 3
    assert at_once(Machine(device="cuda")) == 1
    assert 1 <= at_once(Machine(device="cpu")) <= 4


def test_dvc_lock_stands_in_the_graphs_order_whoever_ended_first(tmp_path: Path) -> None:
    head, first = "schema: '2.0'\nstages:\n", "  a@x:\n    cmd: 1\n    deps:\n    - path: p\n"
    second, gone = "  b:\n    cmd: 2\n", "  no longer in dvc.yaml:\n    cmd: 3\n"
    project = Project(tmp_path)
    for blocks in itertools.permutations([first, second, gone]):
        project.dvc_lock.write_text(head + "".join(blocks))
        put_in_order(project, ["never run", "a@x", "b"])
        assert project.dvc_lock.read_text() == head + first + second + gone
