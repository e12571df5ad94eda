"""What has come into the archive since: new studies, what was added to known ones, bytes.

A study that comes again under its key is one study, whatever the sender repeats. Its report, or
more files of it, make no new study of it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from lapvqa.arrivals import STUDY, Arrival, of_studies
from lapvqa.project import Project
from lapvqa.recorder import counted


@dataclass(frozen=True)
class Arrived:
    """What came in a stretch of time."""

    studies: int = 0
    """New ones."""
    bytes: int = 0
    busy_since: datetime | None = None
    """Since when there was no gap that would count as quiet."""
    last: datetime | None = None
    amended: int = 0
    """Studies known before, of which a report or other files came."""

    def words(self) -> str:
        """Say it, as "200 studies, 3 amended"."""
        amended = f", {self.amended} amended" if self.amended else ""
        return counted(self.studies, "study") + amended

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        at = {name: getattr(self, name) for name in ("busy_since", "last")}
        return {**asdict(self), **{name: time and time.isoformat() for name, time in at.items()}}


def between(
    project: Project, before: datetime | None, now: datetime, *, quiet: timedelta
) -> Arrived:
    """Return what arrived after ``before`` until ``now``; all that is known if it is None.

    A gap of ``quiet`` ends a busy stretch.
    """
    come = of_studies(project.arrivals)
    first, end = (
        bisect_right(come, at, key=lambda one: one.at) if at else 0 for at in (before, now)
    )
    return add_up(come[first:end], quiet=quiet)


def add_up(come: Sequence[Arrival], *, quiet: timedelta) -> Arrived:
    """Return what arrivals in the order of their times come to; repeats count once, as the last."""
    if not come:
        return Arrived()
    sizes = {(one.study, one.kind): one.bytes for one in come}
    new = {study for study, kind in sizes if kind == STUDY}
    busy_since = come[-1].at
    for one in reversed(come):
        if busy_since - one.at > quiet:
            break
        busy_since = one.at
    amended = {study for study, _ in sizes} - new
    return Arrived(len(new), sum(sizes.values()), busy_since, come[-1].at, len(amended))
