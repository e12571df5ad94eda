"""A pause holds whatever begins by itself, with a clock or without one, until it is ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flows.commands import schedule
from lapvqa import arrivals, storage
from lapvqa.project import Project
from lapvqa.retraining import clock, pause, rounds, situation, wanted

NOW = datetime.now(UTC)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    return lambda: " ".join(capsys.readouterr().out.split())


def answer(project: Project) -> str:
    return str(rounds.ask(project, datetime.now(UTC))[1].answer)


def test_without_a_clock_arrivals_wait_until_it_goes_on(
    ruled: Callable[..., Project], said: Callable[[], str]
) -> None:
    project = ruled(each_arrival=True)
    study = {"event": "study", "study": "a", "id": "a", "source": "PACS"}
    arrivals.append(project.arrivals, [{"at": arrivals.now(), **study}])
    assert answer(project) == "look"
    schedule.set_paused(project, paused=True)
    assert said() == pause.IN_WORDS
    assert answer(project) == "wait"
    schedule.show(project, as_json=False)
    assert said().count("paused") == 2  # beside the clock, and as what is decided now
    wanted.want(project, "hand", force=True)
    assert answer(project) == "train"
    wanted.change(project, lambda _: wanted.Wanted())
    schedule.set_paused(project, paused=False)
    assert answer(project) == "look"
    assert said() == "it goes on"
    schedule.set_paused(project, paused=False)
    assert said() == "it was not paused"


def test_a_pause_outlives_clocks_and_the_times_in_it_are_gone(
    ruled: Callable[..., Project], said: Callable[[], str]
) -> None:
    project = ruled()
    schedule.set_paused(project, paused=True)
    schedule.set_clock(project, "* * * * *", "UTC")
    known = clock.load(project)
    assert known is not None
    long_ago = (NOW - timedelta(days=2)).isoformat()
    clock.keep(project, clock.Schedule(known.cron, known.zone, long_ago))
    situation.tick(project, NOW)
    assert answer(project) == "nothing"
    said()
    schedule.times(project, count=2, as_json=False)
    assert said().endswith(pause.IN_WORDS)
    schedule.set_paused(project, paused=False)
    situation.tick(project, datetime.now(UTC))
    assert not wanted.load(project).causes
    schedule.set_paused(project, paused=True)
    schedule.remove(project)
    assert pause.is_paused(project)


def test_going_on_without_a_pause_takes_no_time_from_the_clock(
    ruled: Callable[..., Project],
) -> None:
    project = ruled()
    long_ago = (NOW - timedelta(days=2)).isoformat()
    clock.keep(project, clock.Schedule("0 2 * * *", "UTC", long_ago))
    schedule.set_paused(project, paused=False)
    assert answer(project) == "look"


def test_a_clock_that_an_earlier_version_paused_is_paused(ruled: Callable[..., Project]) -> None:
    project = ruled()
    long_ago = (NOW - timedelta(days=2)).isoformat()
    old = {"cron": "0 2 * * *", "zone": "UTC", "since": long_ago, "answered": None, "paused": True}
    storage.write_json(project.schedule, old)
    assert pause.is_paused(project)
    assert answer(project) == "nothing"
    pause.resume(project, NOW)
    assert not pause.is_paused(project)


def test_list_and_next_tell_a_program(
    ruled: Callable[..., Project], capsys: pytest.CaptureFixture[str]
) -> None:
    project = ruled()
    schedule.show(project, as_json=True)
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (told["clock"], told["paused"], told["wanted"], told["rounds"]) == (None, False, [], [])
    assert told["decision"]["answer"] == "nothing"
    schedule.set_clock(project, "0 2 * * *", "Asia/Tokyo")
    wanted.want(project, "hand")
    pause.pause(project)
    schedule.times(project, count=2, as_json=True)
    coming = json.loads(capsys.readouterr().out)
    assert (coming["paused"], len(coming["clock"]["next"])) == (True, 2)
    assert all(at.endswith("T02:00:00+09:00") for at in coming["clock"]["next"])
    schedule.show(project, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["clock"]["zone"] == "Asia/Tokyo"
    assert [one["cause"] for one in told["wanted"]] == ["hand"]
    assert told["decision"]["answer"] == "wait"
