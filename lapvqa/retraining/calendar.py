"""When no training may begin: the freeze windows of params.yaml, in the project's time zone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta

from lapvqa.params import FreezeParams

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOWS_AT_MOST = 1000


def thaw(windows: Sequence[FreezeParams], now: datetime) -> datetime | None:
    """Return when the freeze that holds at ``now`` ends; None if none holds.

    Windows that touch are one. Where they never end, the last end that was looked at is returned.
    """
    end = None
    for _ in range(_WINDOWS_AT_MOST):
        ends = [found for window in windows if (found := _end(window, end or now))]
        if not ends:
            break
        end = max(ends)
    return end


def next_month(now: datetime) -> datetime:
    """Return the first moment of the next month."""
    return month_of(month_of(now) + timedelta(days=32))


def month_of(now: datetime) -> datetime:
    """Return the first moment of the month."""
    return now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _end(window: FreezeParams, now: datetime) -> datetime | None:
    if isinstance(window.first, date) and isinstance(window.last, date):
        inside = window.first <= now.date() <= window.last
        return _at(now, window.last + timedelta(days=1), time()) if inside else None
    assert isinstance(window.first, time)
    assert isinstance(window.last, time)
    for day in (now.date(), now.date() - timedelta(days=1)):  # yesterday's may pass midnight
        if window.days and _DAYS[day.weekday()] not in window.days:
            continue
        over = timedelta(days=window.last <= window.first)
        begin, end = _at(now, day, window.first), _at(now, day + over, window.last)
        if begin <= now < end:
            return end
    return None


def _at(now: datetime, day: date, clock: time) -> datetime:
    return datetime.combine(day, clock, tzinfo=now.tzinfo)
