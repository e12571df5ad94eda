"""The clock: cron in time zones, daylight saving, downtime, and what is no cron."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flows.commands import schedule
from lapvqa.errors import ConfigError
from lapvqa.project import Project
from lapvqa.retraining import clock, situation, wanted

_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("week", 0, 6))


@st.composite
def fields(draw: st.DrawFn) -> list[set[int] | None]:
    """Five fields as sets of numbers; None: any."""
    return [
        draw(st.none() | st.sets(st.integers(low, high), min_size=1, max_size=4))
        for _, low, high in _FIELDS
    ]


def names(spec: list[set[int] | None], at: datetime) -> bool:
    """Tell whether a minute is one of cron's, as its manual says; independent of the package."""
    minute, hour, day, month, week = spec
    found = (at.minute, at.hour, at.day, at.month, at.isoweekday() % 7)
    is_in = [one is None or value in one for one, value in zip(spec, found, strict=True)]
    by_day = is_in[2] and is_in[4] if day is None or week is None else is_in[2] or is_in[4]
    return is_in[0] and is_in[1] and is_in[3] and by_day


@settings(max_examples=60)
@given(fields(), st.datetimes(datetime(2026, 1, 1), datetime(2030, 1, 1)))
def test_times_are_those_that_the_fields_name(
    spec: list[set[int] | None], moment: datetime
) -> None:
    cron = " ".join("*" if one is None else ",".join(map(str, sorted(one))) for one in spec)
    now = moment.replace(tzinfo=UTC)
    try:
        coming = clock.upcoming(cron, "UTC", now, count=3)
    except ConfigError:
        assume(False)
    assert all(names(spec, at) for at in coming)
    last = clock.latest(cron, "UTC", now)
    assert names(spec, last)
    assert last <= now < coming[0]
    near = now.replace(second=0, microsecond=0)
    between = [near + timedelta(minutes=step) for step in range(-600, 600)]
    expected = [at for at in between if last < at < coming[0] and at != now and names(spec, at)]
    assert not expected


# 2027 in Berlin: 28 March, 02:00 becomes 03:00; 31 October, 03:00 becomes 02:00.
@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        ("30 2 * * *", "2027-03-27T12:00Z", ["03-28 01:00", "03-29 00:30"]),  # 03:00 for 02:30
        ("30 2 * * *", "2027-10-30T12:00Z", ["10-31 00:30", "11-01 01:30"]),  # once, the first
        ("0 * * * *", "2027-10-30T23:30Z", ["10-31 00:00", "10-31 01:00", "10-31 02:00"]),
        ("0 * * * *", "2027-03-28T00:30Z", ["03-28 01:00", "03-28 02:00"]),
    ],
)
def test_daylight_saving(cron: str, after: str, expected: list[str]) -> None:
    now = datetime.fromisoformat(after)
    coming = clock.upcoming(cron, "Europe/Berlin", now, count=len(expected))
    assert [f"{at.astimezone(UTC):%m-%d %H:%M}" for at in coming] == expected
    for at in (one.astimezone(UTC) for one in coming):
        assert clock.latest(cron, "Europe/Berlin", at) == at
        assert clock.latest(cron, "Europe/Berlin", at + timedelta(minutes=1)) == at
        assert clock.latest(cron, "Europe/Berlin", at - timedelta(seconds=1)) < at


def test_times_are_those_of_the_zone() -> None:
    now = datetime(2027, 1, 1, tzinfo=UTC)
    times = clock.upcoming("0 2 * * *", "Asia/Tokyo", now, count=3)
    assert [at.hour for at in times] == [2, 2, 2]
    assert {at.utcoffset() for at in times} == {timedelta(hours=9)}


@pytest.mark.parametrize(
    "cron", ["every night", "0 0 2 * * *", "0 2 * *", "61 2 * * *", "0 0 30 2 *", "@daily", ""]
)
def test_what_is_no_cron_of_five_fields_is_refused(cron: str) -> None:
    with pytest.raises(ConfigError, match="five fields"):
        clock.upcoming(cron, "UTC", datetime.now(UTC), count=1)


@pytest.mark.parametrize("zone", ["Mars/Base", "../../etc/passwd", ""])
def test_what_is_no_zone_is_refused(zone: str) -> None:
    with pytest.raises(ConfigError, match="time zone"):
        clock.upcoming("0 2 * * *", zone, datetime.now(UTC), count=1)


@pytest.mark.parametrize(
    ("told", "zone"),
    [
        ("Asia/Tokyo", "Asia/Tokyo"),
        (":Asia/Tokyo", "Asia/Tokyo"),
        ("/usr/share/zoneinfo/Asia/Tokyo", "Asia/Tokyo"),
        ("Foo/Bar", None),
        ("UTC-3", None),
        ("CET-1CEST", None),
    ],
)
def test_a_zone_of_the_machine_without_a_name_makes_no_clock(
    ruled: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, told: str, zone: str | None
) -> None:
    project: Project = ruled()
    monkeypatch.setenv("TZ", told)
    if zone is None:
        with pytest.raises(ConfigError, match=re.escape(f"found TZ={told}")) as refused:
            schedule.set_clock(project, "0 2 * * *", None)
        assert "--zone" in refused.value.hint
        assert clock.load(project) is None
        assert clock.local_timezone() == "UTC"
        zone = "Europe/Berlin"
        schedule.set_clock(project, "0 2 * * *", zone)
    else:
        schedule.set_clock(project, "0 2 * * *", None)
    kept = clock.load(project)
    assert kept is not None
    assert kept.zone == zone


def test_after_downtime_the_clock_asks_once(ruled: Callable[..., Any]) -> None:
    project: Project = ruled()
    since = datetime(2027, 3, 1, tzinfo=UTC)
    clock.keep(project, clock.Schedule("*/5 * * * *", "Europe/Berlin", since.isoformat()))
    for hours in (0, 50, 50, 51):
        situation.tick(project, since + timedelta(hours=hours, minutes=2))
    (cause,) = wanted.load(project).causes
    assert (cause.cause, cause.count) == ("clock", 2)  # at 50 hours and at 51, none for what was
    assert cause.until == since + timedelta(hours=51)
