"""What is decided: a table of situations, and what holds in all of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapvqa.errors import ConfigError
from lapvqa.params import RetrainingParams, validate
from lapvqa.retraining import calendar
from lapvqa.retraining.arrivals import Arrived
from lapvqa.retraining.decision import Answer, decide
from lapvqa.retraining.situation import Situation
from lapvqa.retraining.wanted import CAUSES, Cause, Round

NOW = datetime(2027, 3, 10, 12, 0, tzinfo=UTC)

RULE: dict[str, Any] = {"new_studies": 100, "gpu_hours": 10.0}
DAYS = [{"from": "2027-03-09", "until": "2027-03-10"}]
NOON = [{"days": ["wed"], "from": "11:30", "until": "13:00"}]


def rule(**values: Any) -> RetrainingParams:
    return validate(RetrainingParams, {**RULE, **values}, "params.yaml")


def cause(name: str, *, ago_h: float = 5, **facts: Any) -> Cause:
    at = (NOW - timedelta(hours=ago_h)).isoformat()
    return Cause(name, at, at, 1, facts)


def come(studies: int, *, ago_h: float = 5, busy_h: float = 0) -> Arrived:
    last = NOW - timedelta(hours=ago_h)
    return Arrived(studies, studies * 10**7, last - timedelta(hours=busy_h), last)


HAND, CLOCK, DRIFT, ERASURE = (cause(name) for name in ("hand", "clock", "drift", "erasure"))
FORCED = cause("hand", force=True)
BEGUN = Round("r", NOW.isoformat(), (HAND,), "scratch")
LATE = NOW - timedelta(hours=1)


@pytest.mark.parametrize(
    ("seen", "asked", "answer", "why"),
    [
        (Situation(), {}, "nothing", "nothing asks"),
        (Situation(arrived=come(99)), {}, "nothing", "nothing asks"),
        (Situation(arrived=come(100)), {}, "look", "counted"),
        (Situation(arrived=come(1)), {"each_arrival": True}, "look", "counted"),
        (Situation(arrived=come(100)), {"new_studies": 0, "new_gigabytes": 0.9}, "look", "counted"),
        (Situation(arrived=come(100), new=0), {}, "no", "enough studies arrived; 0 new studies"),
        (Situation(arrived=come(100), new=1), {}, "train", "studies"),
        (Situation((CLOCK,), new=3), {"least_new": 4}, "no", "at least 4"),
        (Situation((CLOCK,), new=4), {"least_new": 4}, "train", "by the clock"),
        (Situation((HAND,)), {}, "train", "by hand"),
        (Situation((ERASURE,), start="a" * 64), {"start": "champion"}, "train", "scratch, since"),
        (Situation((HAND,), start="a" * 64), {"start": "champion"}, "train", "from the champion"),
        (Situation((HAND,), no_start="it is gone"), {"start": "champion"}, "train", "it is gone"),
        (Situation((DRIFT,)), {}, "evaluate", "any worse"),
        (Situation((DRIFT,), judged="0.8 as before"), {}, "no", "0.8 as before"),
        (Situation((DRIFT, cause("performance"))), {}, "look", "counted"),
        (Situation((DRIFT, cause("performance")), new=9), {}, "train", "the champion does worse"),
        (Situation((DRIFT,), arrived=come(100)), {}, "look", "counted"),
        # Looks for drift, by how much has come since the last one.
        (Situation(unwatched=come(199)), {}, "nothing", "nothing asks"),
        (Situation(unwatched=come(200)), {}, "look for drift", "200 studies"),
        (Situation((CLOCK,), unwatched=come(200)), {}, "look for drift", "200 studies"),
        (Situation(unwatched=come(200)), {"look_studies": 0}, "nothing", "nothing asks"),
        (Situation(unwatched=come(200, ago_h=0.2)), {}, "nothing", "nothing asks"),
        (Situation(unwatched=come(200, ago_h=0.2, busy_h=25)), {}, "look for drift", "200"),
        (Situation(unwatched=come(200), paused=True), {}, "nothing", "nothing asks"),
        (Situation((HAND,), unwatched=come(200)), {"freeze": NOON}, "wait", "13:00"),
        (Situation((FORCED,), unwatched=come(200), paused=True), {}, "train", "by hand"),
        # What may not begin now.
        (Situation(arrived=come(100, ago_h=0.2)), {}, "wait", "30 quiet minutes"),
        (Situation(arrived=come(100, ago_h=0.2, busy_h=25)), {}, "look", "counted"),
        (Situation((cause("erasure", ago_h=0.1),)), {}, "wait", "quiet"),
        (Situation(arrived=come(100), tried=LATE), {}, "wait", "12 hours lie"),
        (Situation((cause("clock", ago_h=0.5),), tried=LATE), {}, "look", "counted"),
        (Situation((cause("hand", ago_h=0.5),), tried=LATE), {}, "train", "by hand"),
        (Situation((HAND, CLOCK), tried=LATE), {}, "wait", "12 hours lie"),  # tried, and failed
        (Situation((HAND,), paused=True), {}, "wait", "paused"),
        (Situation((HAND,)), {"freeze": DAYS}, "wait", "2027-03-11 00:00"),
        (Situation((HAND,)), {"freeze": NOON}, "wait", "2027-03-10 13:00"),
        (Situation((HAND,), hours_spent=8, hours_expected=3), {}, "wait", "8.0 of 10"),
        (
            Situation((HAND,), hours_spent=0.00812, hours_expected=0.0042),
            {"gpu_hours": 0.01},
            "wait", "0.0081 of 0.01 hours of this month are spent, a training takes 0.0042",
        ),
        (Situation((HAND,), hours_spent=7, hours_expected=3), {}, "train", "by hand"),
        (Situation((HAND,), hours_spent=99), {"gpu_hours": None}, "train", "by hand"),
        (Situation(paused=True), {}, "nothing", "paused"),
        (Situation(arrived=come(100), paused=True), {}, "wait", "paused"),
        (Situation(arrived=come(1), paused=True), {"each_arrival": True}, "wait", "paused"),
        (Situation((FORCED,), hours_spent=99, paused=True), {"freeze": DAYS}, "train", "by hand"),
        # A round that was begun.
        (Situation((FORCED,), at_work="a round"), {}, "wait", "a round is at work"),
        (Situation(round=BEGUN, at_work="a run"), {}, "wait", "a run is at work"),
        (Situation(round=BEGUN), {}, "resume", "cut off"),
        (Situation(round=BEGUN), {}, "resume", "asked for by hand"),
        (Situation(round=BEGUN), {"freeze": DAYS}, "wait", "cut off"),
        (Situation(round=BEGUN, paused=True), {}, "wait", "cut off; paused"),
        (Situation((FORCED,), round=BEGUN, paused=True), {}, "resume", "cut off"),
    ],
)  # fmt: skip
def test_decisions(seen: Situation, asked: dict[str, Any], answer: str, why: str) -> None:
    decision = decide(seen, rule(**asked), NOW)
    assert str(decision.answer) == answer, decision.why
    assert why in decision.why


moments = st.datetimes(datetime(2027, 3, 1), datetime(2027, 3, 20), timezones=st.just(UTC))
situations = st.builds(
    Situation,
    causes=st.lists(
        st.builds(
            lambda name, at: Cause(name, at.isoformat(), at.isoformat()),
            st.sampled_from(CAUSES), moments,
        ), max_size=4,
    ).map(tuple),
    arrived=st.just(Arrived()) | st.builds(
        lambda studies, at: Arrived(studies, studies, at, at), st.integers(1, 300), moments
    ),
    at_work=st.sampled_from(["", "a run"]), paused=st.booleans(), tried=st.none() | moments,
    hours_spent=st.floats(0, 20), hours_expected=st.floats(0, 20),
    new=st.none() | st.integers(0, 50), judged=st.none() | st.just("as before"),
)  # fmt: skip


@given(situations, moments, st.sampled_from([[], DAYS, NOON]))
def test_what_holds_of_every_decision(
    seen: Situation, now: datetime, freeze: list[dict[str, Any]]
) -> None:
    asked = rule(freeze=freeze, least_new=5)
    decision = decide(seen, asked, now)
    assert decide(seen, asked, now) == decision
    named = {one.cause for one in decision.causes}
    if decision.answer is Answer.TRAIN:
        assert (seen.at_work, seen.paused) == ("", False)
        assert calendar.thaw(asked.freeze, now) is None
        assert seen.hours_spent + seen.hours_expected <= 10
        assert (seen.new or 0) >= 5 or named & {"hand", "erasure"}
        assert decision.way == "scratch"
    if decision.acts:
        assert {one.cause for one in seen.causes} <= named
    if decision.answer is Answer.WAIT and decision.until:
        assert decision.until > now
        # What waits for a time does not wait for the same thing when it has come.
        assert decide(seen, asked, decision.until).why != decision.why or seen.hours_spent
    if decision.answer is Answer.NO:
        assert seen.new is not None or seen.judged is not None


@given(situations, moments)
def test_more_causes_never_turn_a_training_into_nothing(seen: Situation, now: datetime) -> None:
    before = decide(seen, rule(), now)
    at = (now - timedelta(days=3)).isoformat()
    more = replace(seen, causes=(*seen.causes, Cause("hand", at, at)))
    if before.answer is Answer.TRAIN:
        assert decide(more, rule(), now).answer is Answer.TRAIN
    assert decide(more, rule(), now).answer is not Answer.NOTHING


@pytest.mark.parametrize(
    ("window", "now", "thaws"),
    [
        ({"from": "22:00", "until": "06:00"}, "2027-03-10T05:59", "2027-03-10 06:00"),
        ({"from": "22:00", "until": "06:00"}, "2027-03-10T06:00", None),
        ({"from": "22:00", "until": "06:00", "days": ["fri"]}, "2027-03-13T01:00", "2027-03-13"),
        ({"from": "22:00", "until": "06:00", "days": ["fri"]}, "2027-03-12T01:00", None),
        ({"from": "2027-03-10", "until": "2027-03-10"}, "2027-03-10T23:59", "2027-03-11 00:00"),
    ],
)
def test_windows(window: dict[str, Any], now: str, thaws: str | None) -> None:
    windows = rule(freeze=[window]).freeze
    found = calendar.thaw(windows, datetime.fromisoformat(now).replace(tzinfo=UTC))
    assert found is None if thaws is None else str(found).startswith(thaws)


def test_windows_that_touch_are_one() -> None:
    windows = rule(freeze=[*DAYS, {"from": "00:00", "until": "07:00"}]).freeze
    assert calendar.thaw(windows, NOW) == datetime(2027, 3, 11, 7, tzinfo=UTC)


@pytest.mark.parametrize(
    "window",
    [
        {"from": "2027-03-10", "until": "07:00"},
        {"from": "7:00", "until": "19:00"},
        {"from": "2027-03-10", "until": "2027-03-09"},
        {"from": "2027-03-10", "until": "2027-03-11", "days": ["mon"]},
        {"from": "07:00", "until": "19:00", "days": ["monday"]},
    ],
)
def test_what_is_no_window_is_refused(window: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="freeze"):
        rule(freeze=[window])
