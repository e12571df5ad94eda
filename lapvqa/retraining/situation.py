"""All that a decision looks at, read from the project in a moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from lapvqa import storage
from lapvqa.drift import looks
from lapvqa.lineage import ledger
from lapvqa.machine import load_machine
from lapvqa.params import Params
from lapvqa.project import Project
from lapvqa.retraining import arrivals, clock, lease, minutes, pause, starts, wanted
from lapvqa.retraining.arrivals import Arrived
from lapvqa.retraining.wanted import Cause, Round


@dataclass(frozen=True)
class Situation:
    """What is wanted, what is at work, and what a training would cost."""

    causes: tuple[Cause, ...] = ()
    arrived: Arrived = Arrived()
    """Since the last training began."""
    unwatched: Arrived = Arrived()
    """Since the last look for drift; nothing where no encoder could look."""
    round: Round | None = None
    at_work: str = ""
    """What is at work now: a round whose worker lives, or a run of the project."""
    paused: bool = False
    trained: datetime | None = None
    """When the run began that had the last whole training."""
    answered: datetime | None = None
    """The same, of the last training whose round did not fail after it."""
    tried: datetime | None = None
    """When the last training, or round that failed, began."""
    hours_spent: float = 0.0
    """Of trainings, this month; a process on a GPU for an hour is one."""
    hours_expected: float = 0.0
    """What the last whole training took."""
    start: str | None = None
    """sha256 of the weights that a training could go on from."""
    no_start: str = ""
    """Why there are none."""
    new: int | None = None
    """Studies to learn from that no training has seen; None before anybody has counted."""
    judged: str | None = None
    """What an evaluation of the champion has said since; None before."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values, for the ledger."""
        return {
            "causes": [cause.to_json() for cause in self.causes],
            "arrived": self.arrived.to_json(), "unwatched": self.unwatched.to_json(),
            "round": self.round and self.round.id, "at_work": self.at_work, "paused": self.paused,
            "trained": self.trained and self.trained.isoformat(),
            "tried": self.tried and self.tried.isoformat(),
            "hours_spent": round(self.hours_spent, 3),
            "hours_expected": round(self.hours_expected, 3),
            "start": self.start, "no_start": self.no_start, "new": self.new, "judged": self.judged,
        }  # fmt: skip


def look(project: Project, params: Params, now: datetime, *, holder: bool = False) -> Situation:
    """Read the situation; nothing is written.

    ``holder``: the caller holds the round's lease, so that no other is at work.
    """
    costs = minutes.costs(project, load_machine(project), now)
    record = wanted.load(project)
    ended = minutes.rounds(project)
    # A round that only judged what drift asked about has answered nothing of the new studies.
    counted = [one for one in ended if {row["cause"] for row in one["causes"]} != {wanted.DRIFT}]
    can_look = (project.model_dir(params.pretrain.objective) / "card.json").exists()
    tried = [one for one in ended if one["outcome"] in (minutes.TRAINED, minutes.FAILED)]
    cut_off = record.round if record.round and record.round.way is None else None
    causes = [*(cut_off.causes if cut_off else ()), *record.causes]
    if asking := _asking_clock(project, now):
        causes.append(Cause.said(wanted.CLOCK, asking[1]))
    start = starts.champion(project)
    no_start = starts.fault(project, start)

    def since(*times: datetime | None) -> Arrived:
        quiet = timedelta(minutes=params.retraining.quiet_minutes)
        return arrivals.between(project, _latest(now, *times), now, quiet=quiet)

    return Situation(
        causes=tuple(
            cause for cause in wanted.merged(causes) if not is_answered(cause, costs.answered)
        ),
        arrived=since(costs.began, *_began(counted[-1:])),
        unwatched=since(looks.last_look(ledger.entries(project))) if can_look else Arrived(),
        round=None if cut_off else record.round,
        at_work=_at_work(project, holder=holder),
        paused=pause.is_paused(project),
        trained=costs.began,
        answered=costs.answered,
        tried=_latest(now, costs.began, *_began(tried[-1:])),
        hours_spent=costs.hours_spent,
        hours_expected=costs.hours_expected,
        start=start.sha256 if start and not no_start else None,
        no_start=no_start,
    )  # fmt: skip


def _at_work(project: Project, *, holder: bool) -> str:
    if not holder and lease.is_held(project.round_lease):
        return "a round"
    return "a run" if storage.holder(project.run_lock) else ""


def is_answered(cause: Cause, trained: datetime | None) -> bool:
    """Tell whether a training began after a cause was last said."""
    return trained is not None and cause.until <= trained


def tick(project: Project, now: datetime) -> None:
    """Make a cause of a time of the schedule that has come; of several the last."""
    if asking := _asking_clock(project, now):
        schedule, due = asking
        wanted.want(project, wanted.CLOCK, now=due)
        clock.answer(project, schedule, due)


def _asking_clock(project: Project, now: datetime) -> tuple[clock.Schedule, datetime] | None:
    """Return the clock and the time that it asks for; None while it asks for none."""
    schedule = clock.load(project)
    due = schedule.due(now) if schedule and not pause.is_paused(project) else None
    return (schedule, due) if schedule and due else None


def _began(ended: list[dict[str, Any]]) -> list[datetime]:
    return [datetime.fromisoformat(one["began"]) for one in ended]


def _latest(now: datetime, *times: datetime | None) -> datetime | None:
    """Return the last of these times; what is still to come, as a clock was set back, is none."""
    return max((time for time in times if time and time <= now), default=None)


def zoned_now(project: Project) -> datetime:
    """Return the time, in the zone in which this project's days begin."""
    return datetime.now(UTC).astimezone(clock.zone_of(project))
