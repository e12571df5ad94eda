"""When the clock asks for a training: five fields of cron in a time zone, kept in schedule.json.

Times are those of Debian's cron (the package cronsim): a time that daylight saving skips comes at
the next minute there is, one that comes twice is taken once; fields with a star follow the hours
that pass. Of times missed while nothing ran, the last counts: one catch-up, never a heap.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from cronsim import CronSim, CronSimError

from lapvqa import storage
from lapvqa.errors import ConfigError
from lapvqa.project import Project

_FIELDS = 5
_LOCALTIME = "/etc/localtime"
_MACHINES_DIFFER = timedelta(hours=1)
"""So far may the clocks of two machines lie apart; more, and this one was set back."""


@dataclass(frozen=True)
class Schedule:
    """A clock that asks; times in JSON are ISO 8601."""

    cron: str
    zone: str
    since: str
    """When it was made: earlier times are not its own."""
    answered: str | None = None
    """The last of its times that became a cause."""

    def due(self, now: datetime) -> datetime | None:
        """Return the last time up to ``now`` that has not become a cause, or None."""
        before = datetime.fromisoformat(self.answered or self.since)
        last = latest(self.cron, self.zone, now)
        was_set_back = before - now > _MACHINES_DIFFER
        return last if last > before or was_set_back else None


def load(project: Project) -> Schedule | None:
    """Return the project's schedule, or None."""
    if not project.schedule.exists():
        return None
    told = storage.read_json(project.schedule, made_by="schedule")
    told.pop("paused", None)  # of earlier versions: lapvqa.retraining.pause
    return Schedule(**told)


def keep(project: Project, schedule: Schedule) -> None:
    """Write the schedule; ConfigError, and nothing written, if its times are none."""
    upcoming(schedule.cron, schedule.zone, datetime.fromisoformat(schedule.since), count=1)
    storage.write_json(project.schedule, asdict(schedule))


def answer(project: Project, schedule: Schedule, due: datetime) -> None:
    """Note that ``due`` has become a cause."""
    keep(project, replace(schedule, answered=due.isoformat()))


def upcoming(cron: str, zone: str, now: datetime, *, count: int) -> list[datetime]:
    """Return the next ``count`` times after ``now``; ConfigError if it names none."""
    return list(islice(_times(cron, zone, now), count))


def latest(cron: str, zone: str, now: datetime) -> datetime:
    """Return the last time that is not after ``now``, in UTC; ConfigError if there is none."""
    now = now.astimezone(UTC).replace(microsecond=0)
    last = next(_times(cron, zone, now + timedelta(seconds=1), reverse=True))
    # Backwards, the wall clock of an hour that comes twice hides the first of the two.
    for time in _times(cron, zone, last):
        if time.astimezone(UTC) > now:
            break
        last = time
    return last.astimezone(UTC)


def machine_timezone() -> str:
    """Return this machine's time zone by name; ConfigError if TZ or /etc/localtime names none."""
    told = os.environ.get("TZ", "").removeprefix(":")
    place = Path(told or _LOCALTIME)
    if not told and not place.exists():
        return "UTC"  # so says localtime(5)
    name = place.resolve().as_posix().rpartition("zoneinfo/")[2] if place.is_absolute() else told
    if name not in available_timezones():
        found = f"TZ={told}" if told else f"{_LOCALTIME} without one"
        raise ConfigError(
            f"expected this machine's time zone by name, found {found}",
            hint="say in which zone the times are meant: --zone Europe/Berlin",
        )
    return name


def local_timezone() -> str:
    """Return this machine's time zone by name, UTC if unknown."""
    try:
        return machine_timezone()
    except ConfigError:
        return "UTC"


def zone_of(project: Project) -> ZoneInfo:
    """Return the zone in which this project's days begin: its schedule's, else the machine's."""
    schedule = load(project)
    return ZoneInfo(schedule.zone if schedule else local_timezone())


def _times(cron: str, zone: str, now: datetime, *, reverse: bool = False) -> CronSim:
    try:
        place = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError(
            f"expected a time zone, found {zone!r}",
            hint="name one such as Europe/Berlin, America/New_York or UTC",
        ) from error
    try:
        if len(cron.split()) != _FIELDS:
            raise CronSimError(f"{len(cron.split())} fields")
        return CronSim(cron, now.astimezone(place), reverse=reverse)
    except CronSimError as error:
        raise ConfigError(
            f"expected five fields (minute hour day month weekday), found {cron!r}: {error}",
            hint='every night at two: --cron "0 2 * * *"',
        ) from error
