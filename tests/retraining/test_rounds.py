"""One round at a time: a thousand triggers, two workers, a death at each step."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.commands import retrain
from lapvqa import arrivals, storage
from lapvqa.drift import looks
from lapvqa.errors import BusyError, ConfigError
from lapvqa.lineage import ledger, story
from lapvqa.lineage.ledger import RUN, Draft
from lapvqa.lineage.runs import Run
from lapvqa.project import Project
from lapvqa.retraining import clock, lease, minutes, rounds, wanted
from lapvqa.retraining.clock import Schedule
from lapvqa.retraining.decision import Answer, Decision
from lapvqa.retraining.rounds import Turn
from lapvqa.retraining.wanted import Round

NOW = datetime(2027, 3, 10, 12, 0, tzinfo=UTC)


def now() -> datetime:
    return datetime.now(UTC)


class Work:
    """Steps that take no time; ``at`` is called at the step named."""

    def __init__(
        self, project: Project, *, at: dict[str, Callable[[], None]] | None = None,
        now: Callable[[], datetime] = now,
    ) -> None:  # fmt: skip
        self.project, self.at, self.done, self.now = project, at or {}, list[str](), now

    def _step(self, name: str) -> None:
        self.done.append(name)
        self.at.get(name, lambda: None)()

    def look_for_drift(self) -> None:
        self._step("look")

    def count_new(self) -> int:
        self._step("count")
        return 10

    def judge_champion(self) -> tuple[str, dict[str, Any] | None]:
        self._step("judge")
        return "worse", {"loss": 0.1}

    def train(self, at_work: Round) -> dict[str, Any]:
        began = self.now().timestamp()
        self._step("train")
        run = Run("pretrain", began, 3600.0)
        ledger.extend(self.project, lambda _: [Draft(RUN, run.payload(), began)])
        return {}

    def gate(self) -> dict[str, Any]:
        self._step("gate")
        return {"outcome": "promote"}


def turn(project: Project, work: Work) -> Turn:
    return rounds.take_turn(project, work, now, lambda _: None)


def test_a_rule_that_no_gate_could_apply_stops_a_round_before_its_training(
    ruled: Callable[..., Project],
) -> None:
    project = ruled()
    text = project.params.read_text()
    project.params.write_text(text.replace("rrg.finding_f1_macro", "rrg.finding_f1_marco"))
    wanted.want(project, wanted.HAND)
    work = Work(project)
    with pytest.raises(ConfigError, match="finding_f1_marco"):
        turn(project, work)
    assert work.done == []
    assert wanted.load(project).causes, "it is still wanted"
    with pytest.raises(ConfigError, match="finding_f1_marco"):
        retrain.execute(project, due=False, dry_run=True, force=False, way=None)
    project.params.write_text(text)
    assert turn(project, work).outcome == "trained"


def test_a_thousand_triggers_are_one_round_and_one_more(ruled: Callable[..., Project]) -> None:
    on_disk = ruled()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        project = Project(Path(folder))
        project.params.write_bytes(on_disk.params.read_bytes())
        _trigger_a_thousand_times(project)


def _trigger_a_thousand_times(project: Project) -> None:
    over, tried = threading.Event(), []
    work = Work(project, at={"train": lambda: (over.wait(120), None)[1]})

    def trigger(number: int) -> None:
        wanted.want(project, "hand", number=number % 50)
        try:
            tried.append(turn(project, work).outcome)
        except BusyError:
            tried.append("busy")
        if tried.count("busy") == 999:
            over.set()

    with ThreadPoolExecutor(16) as pool:
        for done in [pool.submit(trigger, number) for number in range(1000)]:
            done.result()
    assert sorted(tried) == ["busy"] * 999 + ["trained"]
    assert turn(project, work).outcome == "trained"
    assert turn(project, work).outcome is None
    assert work.done.count("train") == 2
    counted = dict.fromkeys(range(50), 0)
    for told in minutes.rounds(project):
        for cause in told["causes"]:
            counted[cause["facts"]["number"]] += cause["count"]
    assert set(counted.values()) == {20}
    assert not project.wanted.exists()
    assert ledger.verify(project) == []


def test_drift_asks_for_an_evaluation_and_a_fall_for_a_training(
    ruled: Callable[..., Project],
) -> None:
    project = ruled()
    wanted.want(project, "drift", kind="acquisition")
    work = Work(project)
    assert turn(project, work).outcome == "trained"
    assert work.done == ["judge", "count", "train", "gate"]
    (told,) = minutes.rounds(project)
    assert [one["cause"] for one in told["causes"]] == ["drift", "performance"]
    said = [e.payload or {} for e in ledger.entries(project) if e.kind == ledger.DECISION]
    answers = [one["answer"] for one in said if one["about"] == minutes.RETRAINING]
    assert answers == ["evaluate", "look", "train"]
    assert all({"inputs", "rule"} <= set(one) for one in said[:-1])


def test_the_same_said_again_between_look_and_round_is_counted(
    ruled: Callable[..., Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    project, decided = ruled(), minutes.record
    wanted.want(project, "hand", number=1)

    def record(*arguments: Any) -> bool:
        if wanted.load(project).round is None:
            wanted.want(project, "hand", number=1)
        return decided(*arguments)

    monkeypatch.setattr(minutes, "record", record)
    assert turn(project, Work(project)).outcome == "trained"
    (told,) = minutes.rounds(project)
    assert [(one["cause"], one["count"]) for one in told["causes"]] == [("hand", 2)]
    assert not project.wanted.exists()


def test_a_round_that_only_judged_leaves_the_count_of_new_studies(
    ruled: Callable[..., Project],
) -> None:
    project = ruled(new_studies=2)
    came(project, "a")
    wanted.want(project, "drift", kind="acquisition")
    work = Work(project)
    work.judge_champion = lambda: ("as before", None)  # type: ignore[method-assign]
    assert turn(project, work).outcome == "declined"
    came(project, "b")
    _, decision = rounds.ask(project, now())
    assert [one.cause for one in decision.causes] == ["studies"]


def test_a_look_that_could_not_be_taken_is_not_asked_for_again_at_once(
    ruled: Callable[..., Project],
) -> None:
    project = ruled(look_studies=1)
    came(project, "a")
    assert str(rounds.ask(project, now())[1].answer) == "nothing"  # there is no encoder to look
    storage.write_json(project.model_dir("captioning") / "card.json", {})
    work = Work(project, at={"look": lambda: looks.refuse(project, "no reference")})
    assert str(turn(project, work).decision.answer) == "nothing"
    assert (work.done, wanted.load(project)) == (["look"], wanted.Wanted())
    told = [e.payload or {} for e in ledger.entries(project) if e.kind == ledger.DECISION]
    assert [one["answer"] for one in told] == ["look for drift", "nothing"]
    assert story.tell(project)[1].sentence == "No look for drift could be taken: no reference."


def came(project: Project, study: str, at: datetime | None = None) -> None:
    """Let a study arrive."""
    when = at.isoformat() if at else arrivals.now()
    arrivals.append(
        project.arrivals,
        [{"at": when, "event": "study", "study": study, "id": study, "source": "PACS"}],
    )


def test_what_comes_while_a_round_looks_is_not_lost(ruled: Callable[..., Project]) -> None:
    project = ruled()
    wanted.want(project, "clock")
    work = Work(project, at={"count": lambda: wanted.want(project, "hand", who="late")})
    turn(project, work)
    (told,) = minutes.rounds(project)
    assert [one["cause"] for one in told["causes"]] == ["clock", "hand"]
    assert not project.wanted.exists()


@pytest.mark.parametrize("step", ["train", "gate"])
def test_a_failed_round_is_wanted_again_after_a_rest(
    ruled: Callable[..., Project], step: str
) -> None:
    """Also one that failed after its training: nobody has evaluated, or judged, that."""
    project = ruled(rest_hours=1)

    def fail() -> None:
        raise OSError("disk")

    wanted.want(project, "erasure", request="r", now=now() - timedelta(hours=2))
    with pytest.raises(OSError, match="disk"):
        turn(project, Work(project, at={step: fail}))
    seen, decision = rounds.ask(project, now())
    assert [one.cause for one in seen.causes] == ["erasure"]
    assert str(decision.answer) == "wait"
    assert "1 hours lie" in decision.why
    later = now() + timedelta(hours=1)
    assert str(rounds.ask(project, later)[1].answer) == "train"
    again = Work(project, now=lambda: later)
    assert rounds.take_turn(project, again, again.now, lambda _: None).outcome == "trained"
    assert str(rounds.ask(project, later)[1].answer) == "nothing"


def _die_in(project: Project, step: str) -> None:
    """Take a turn in a process of its own that is killed at a step; a fork costs no imports."""
    child = os.fork()
    if child == 0:
        try:
            turn(project, Work(project, at={step: lambda: os.kill(os.getpid(), signal.SIGKILL)}))
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)


@pytest.mark.parametrize("step", ["count", "train", "gate"])
def test_a_killed_worker_is_noticed_at_once_and_its_round_goes_on(
    ruled: Callable[..., Project], step: str
) -> None:
    project = ruled()
    wanted.want(project, "clock")
    _die_in(project, step)
    assert project.round_lease.exists()
    begun = wanted.load(project).round
    assert begun is not None
    work = Work(project)
    done = turn(project, work)
    assert done.outcome == "trained"
    told = minutes.rounds(project)
    if step == "count":  # nobody had decided to train yet: it looks again
        assert [one["outcome"] for one in told] == ["cut off", "trained"]
    else:
        assert [(one["id"], one["outcome"]) for one in told] == [(begun.id, "trained")]
        assert work.done == ["train", "gate"]
    assert [one["cause"] for one in told[-1]["causes"]] == ["clock"]
    assert all("asked for by the clock" in one["why"] for one in told)
    assert not project.wanted.exists()


def test_a_lease_of_another_machine_ends_with_its_beats(tmp_path: Path) -> None:
    path = tmp_path / "round.lease"
    other = {"host": "elsewhere", "pid": 1, "born": 0.0, "token": "t", "lease_s": 1000.0}
    storage.write_json(path, other)
    assert lease.is_held(path)
    with pytest.raises(BusyError, match="process 1 on elsewhere"), lease.hold(path):
        pass
    last_beat = path.stat().st_mtime - 1001
    os.utime(path, (last_beat, last_beat))
    assert not lease.is_held(path)
    with lease.hold(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()


def test_a_holder_is_known_by_its_birth_and_not_by_its_number_alone(tmp_path: Path) -> None:
    path = tmp_path / "round.lease"
    with lease.hold(path):
        held = json.loads(path.read_text())
        with lease.hold(path):
            pass
        assert path.exists(), "who holds it may ask again"
        with ThreadPoolExecutor(1) as other, pytest.raises(BusyError):
            other.submit(lambda: lease.hold(path).__enter__()).result()
    long_ago = time.time() - 1000
    for born, lives in [(held["born"], True), (held["born"] - 1, False)]:
        storage.write_json(path, {**held, "born": born})
        os.utime(path, (long_ago, long_ago))  # as a clock that has been set leaves it
        assert lease.is_held(path) is lives


def test_a_run_at_work_is_waited_for(ruled: Callable[..., Project]) -> None:
    project = ruled()
    wanted.want(project, "hand")
    work = Work(project)
    with storage.lock(project.run_lock, what="a run of this project"):
        assert turn(project, work).decision.why == "a run is at work; what is wanted waits"
    assert minutes.rounds(project) == []
    assert turn(project, work).outcome == "trained"
    assert work.done == ["train", "gate"]


def test_a_second_one_is_refused_before_any_server_is_started(
    ruled: Callable[..., Project],
) -> None:
    project = ruled()
    with lease.hold(project.round_lease):
        held = json.loads(project.round_lease.read_text())
    init = {**held, "pid": 1, "born": lease._born(1)}
    storage.write_json(project.round_lease, init)
    with pytest.raises(BusyError, match="process 1 on"):
        retrain.run_flow(project)
    assert not project.prefect_home.exists()


def test_who_asks_while_one_is_at_work_is_told_the_same_at_any_moment(
    ruled: Callable[..., Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    project, told = ruled(), list[str]()
    idle = rounds.ask(project, now())[0]
    with lease.hold(project.round_lease):
        held = json.loads(project.round_lease.read_text())
    storage.write_json(project.round_lease, {**held, "pid": 1, "born": lease._born(1)})

    def ask() -> None:
        with pytest.raises(BusyError) as refused:
            retrain.execute(project, due=False, dry_run=False, force=False, way=None)
        told.append(str(refused.value))

    ask()
    with monkeypatch.context() as patch:  # it began after this one had looked
        train = Decision(Answer.TRAIN, "asked for by hand")
        patch.setattr(rounds, "ask", lambda *_: (idle, train))
        ask()
    assert told[0] == told[1]
    assert "process 1 on" in told[0]
    assert [(one.cause, one.count) for one in wanted.load(project).causes] == [("hand", 2)]
    project.round_lease.unlink()
    with storage.lock(project.run_lock, what="a run of this project"):
        ask()
    assert told[2].startswith("a run is at work; what is wanted waits")


def test_a_clock_that_is_set_back_silences_nobody(ruled: Callable[..., Project]) -> None:
    project = ruled(each_arrival=True, quiet_minutes=30, rest_hours=12, gpu_hours=2.5)
    clock.keep(project, Schedule("0 2 * * *", "UTC", (NOW - timedelta(days=9)).isoformat()))
    came(project, "a", at=NOW)
    wanted.want(project, "hand", now=NOW)
    late = Work(project, now=lambda: NOW)
    assert rounds.take_turn(project, late, late.now, lambda _: None).outcome == "trained"
    before = NOW - timedelta(days=3)
    came(project, "b", at=before)
    wanted.want(project, "hand", now=before)
    seen, decision = rounds.ask(project, before)
    assert {one.cause for one in decision.causes} == {"hand", "arrival", "clock"}
    assert (seen.arrived.studies, seen.trained, seen.tried) == (1, None, None)
    early = Work(project, now=lambda: before)
    assert rounds.take_turn(project, early, early.now, lambda _: None).outcome == "trained"
    again = rounds.ask(project, before + timedelta(minutes=1))[1]
    assert str(again.answer) == "nothing", again.why
    came(project, "c", at=before + timedelta(minutes=2))
    later, decision = rounds.ask(project, before + timedelta(hours=13))
    assert (later.arrived.studies, later.trained, str(decision.answer)) == (1, before, "look")


def test_a_holder_that_slept_too_long_is_told(tmp_path: Path) -> None:
    path, told = tmp_path / "round.lease", threading.Event()
    with lease.hold(path, lease_s=0.6, lost=told.set):
        before = path.stat().st_mtime
        patience = time.monotonic() + 60
        while path.stat().st_mtime == before and time.monotonic() < patience:
            time.sleep(0.01)
        assert path.stat().st_mtime > before
        mine = json.loads(path.read_text())
        storage.write_json(path, {**mine, "token": "another's"})
        assert told.wait(60)
    assert json.loads(path.read_text())["token"] == "another's"


def test_an_old_record_is_read(ruled: Callable[..., Project]) -> None:
    project = ruled()
    old = {"cause": "erasure", "request": "r", "since": NOW.timestamp(), "way": "scratch"}
    storage.write_json(project.wanted, old)
    wanted.want(project, "hand")
    assert [(one.cause, one.count) for one in wanted.load(project).causes] == [
        ("erasure", 1), ("hand", 1),
    ]  # fmt: skip
