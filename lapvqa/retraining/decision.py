"""Whether the encoder is trained anew now: a function of the situation, the rule and the time.

What is asked first: is a round at work, or cut off; has so much come that somebody should look for
drift; is anything wanted; may it begin (paused, frozen, not quiet yet, too soon after the last
one); is there anything to learn; what does it cost.
Drift alone asks for an evaluation: what looks different need not be judged worse.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from lapvqa.params import RetrainingParams
from lapvqa.retraining import calendar, pause
from lapvqa.retraining.arrivals import Arrived
from lapvqa.retraining.situation import Situation
from lapvqa.retraining.wanted import (
    ARRIVAL,
    BYTES,
    CLOCK,
    DRIFT,
    ERASURE,
    HAND,
    PERFORMANCE,
    STUDIES,
    Cause,
    in_words,
    merged,
)

_GIGA = 1e9
_OF_DATA = {CLOCK, ARRIVAL, STUDIES, BYTES, PERFORMANCE, DRIFT}
"""Causes about which a training does nothing unless there is new data."""


class Answer(StrEnum):
    """What is done about what is wanted."""

    NOTHING = "nothing"
    """Nothing asks."""
    WAIT = "wait"
    """Not now; the causes stay."""
    NO = "no"
    """Not at all: the causes are answered."""
    LOOK_FOR_DRIFT = "look for drift"
    """Take in what is new, compare it with the reference, then decide again."""
    LOOK = "look"
    """Take in what is new and count it, then decide again."""
    EVALUATE = "evaluate"
    """Judge the champion on newly labelled patients, then decide again."""
    TRAIN = "train"
    RESUME = "resume"
    """Go on with a round whose worker died."""


@dataclass(frozen=True)
class Decision:
    """An answer, in words why, and the causes it is given to."""

    answer: Answer
    why: str
    causes: tuple[Cause, ...] = ()
    until: datetime | None = None
    """When a WAIT may end; None where that is not a matter of time."""
    way: str | None = None
    """Of TRAIN: champion, or scratch."""

    @property
    def acts(self) -> bool:
        """Tell whether something is to be done now."""
        return self.answer not in (Answer.NOTHING, Answer.WAIT, Answer.NO)

    @property
    def said(self) -> str:
        """The answer and why, in one line."""
        return self.why if self.answer is Answer.NOTHING else f"{self.answer}: {self.why}"

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "answer": str(self.answer), "why": self.why, "way": self.way,
            "until": self.until and self.until.isoformat(),
            "causes": [cause.to_json() for cause in self.causes],
        }  # fmt: skip


def decide(seen: Situation, rule: RetrainingParams, now: datetime) -> Decision:
    """Return what is done now; ``now`` is aware, in the zone in which days and months begin."""
    if seen.at_work:
        why = f"{seen.at_work} is at work; what is wanted waits"
        return Decision(Answer.WAIT, why, seen.causes)
    causes = asked_by(seen, rule)
    thaws = calendar.thaw(rule.freeze, now)
    forced = any(one.cause == HAND and one.facts.get("force") for one in causes)
    if seen.round is not None:
        if not forced and (held := _held(seen, seen.round.causes, thaws)):
            return replace(held, why=f"a round was cut off; {held.why}")
        why = f"a round was cut off and is taken up again; {in_words(seen.round.causes)}"
        return Decision(Answer.RESUME, why, seen.round.causes, way=seen.round.way)
    if not (seen.paused or thaws) and _is_time_to_look(seen.unwatched, rule, now):
        why = f"{seen.unwatched.studies} studies have come since the last look"
        return Decision(Answer.LOOK_FOR_DRIFT, why, causes)
    if not causes:
        paused = f"; {pause.IN_WORDS}" if seen.paused else ""
        return Decision(Answer.NOTHING, f"nothing asks for a training{paused}")
    if not forced and (waits := _waits(seen, rule, now, causes, thaws)):
        return waits
    named = {one.cause for one in causes}
    if named == {DRIFT}:
        if seen.judged is None:
            return Decision(Answer.EVALUATE, "drift: is the champion any worse?", causes)
        why = f"drift, and the champion is not shown to be worse: {seen.judged}"
        return Decision(Answer.NO, why, causes)
    if not forced and (dear := _costs_too_much(seen, rule, now, causes)):
        return dear
    if named <= _OF_DATA:
        if seen.new is None:
            return Decision(Answer.LOOK, "what is new is taken in and counted", causes)
        if seen.new < rule.least_new:
            why = (
                f"{in_words(causes)}; {seen.new} new studies to learn from, at least "
                f"{rule.least_new} are asked for"
            )
            return Decision(Answer.NO, why, causes)
    way, from_where = _way(seen, rule, causes)
    return Decision(Answer.TRAIN, f"{in_words(causes)}; {from_where}", causes, way=way)


def asked_by(seen: Situation, rule: RetrainingParams) -> tuple[Cause, ...]:
    """Return the causes on record and those that what has arrived amounts to."""
    come = seen.arrived
    found = list(seen.causes)
    if come.busy_since and come.last:
        first, last = (at.astimezone(UTC).isoformat() for at in (come.busy_since, come.last))
        reached = {
            ARRIVAL: rule.each_arrival,
            STUDIES: 0 < rule.new_studies <= come.studies,
            BYTES: 0 < rule.new_gigabytes * _GIGA <= come.bytes,
        }
        facts = {"studies": come.studies, "bytes": come.bytes}
        found += [Cause(name, first, last, 1, facts) for name, is_so in reached.items() if is_so]
    return merged(found)


def _held(seen: Situation, causes: tuple[Cause, ...], thaws: datetime | None) -> Decision | None:
    """Return what a pause or a freeze says, which nothing but --force gets past."""
    if seen.paused:
        why = f"{pause.IN_WORDS}; by hand with --force it does"
        return Decision(Answer.WAIT, why, causes)
    if thaws:
        return Decision(Answer.WAIT, f"no training begins before {_time(thaws)}", causes, thaws)
    return None


def _waits(
    seen: Situation, rule: RetrainingParams, now: datetime, causes: tuple[Cause, ...],
    thaws: datetime | None,
) -> Decision | None:  # fmt: skip
    if held := _held(seen, causes, thaws):
        return held
    timed = [one for one in causes if one.cause in (HAND, CLOCK)]
    if any(seen.tried is None or one.until > seen.tried for one in timed):
        return None  # somebody chose the time; not once it has been tried and has failed
    others = [one for one in causes if one not in timed]
    if others:
        since, until = min(one.since for one in others), max(one.until for one in others)
        if quiet := _quiet(since, until, rule, now):
            why = f"causes still come in; {rule.quiet_minutes:g} quiet minutes are waited for"
            return Decision(Answer.WAIT, why, causes, quiet.astimezone(now.tzinfo))
    rested = seen.tried and seen.tried + timedelta(hours=rule.rest_hours)
    if rested and now < rested:
        why = f"{rule.rest_hours:g} hours lie between two trainings"
        return Decision(Answer.WAIT, why, causes, rested.astimezone(now.tzinfo))
    return None


def _is_time_to_look(come: Arrived, rule: RetrainingParams, now: datetime) -> bool:
    if not (come.busy_since and come.last and 0 < rule.look_studies <= come.studies):
        return False
    return _quiet(come.busy_since, come.last, rule, now) is None


def _quiet(
    since: datetime, until: datetime, rule: RetrainingParams, now: datetime
) -> datetime | None:
    """Return when nothing will have come for long enough, or has for too long; None: so it is."""
    quiet = timedelta(minutes=rule.quiet_minutes)
    over = min(until + quiet, since + timedelta(hours=rule.patience_hours))
    # A time far ahead is of before the clock was set back: nobody waits until it comes again.
    return over if now < over and until - now < quiet else None


def _costs_too_much(
    seen: Situation, rule: RetrainingParams, now: datetime, causes: tuple[Cause, ...]
) -> Decision | None:
    if rule.gpu_hours is None or seen.hours_spent + seen.hours_expected <= rule.gpu_hours:
        return None
    why = (
        f"{in_hours(seen.hours_spent)} of {rule.gpu_hours:g} hours of this month are spent, a "
        f"training takes {in_hours(seen.hours_expected)}"
    )
    fits = seen.hours_expected <= rule.gpu_hours
    return Decision(Answer.WAIT, why, causes, calendar.next_month(now) if fits else None)


def in_hours(number: float) -> str:
    """Return hours with a digit behind the point, below one with the two first that count."""
    return f"{number:.1f}" if number >= 1 else f"{number:.2g}"


def _way(seen: Situation, rule: RetrainingParams, causes: tuple[Cause, ...]) -> tuple[str, str]:
    """Return champion or scratch, and why."""
    if any(one.cause == ERASURE for one in causes):
        return "scratch", "from scratch, since weights keep what they have seen"
    if any(one.facts.get("way") == "scratch" for one in causes):
        return "scratch", "from scratch, as asked"
    said = next((one.facts["way"] for one in causes if one.facts.get("way")), None)
    asked = said or rule.start
    if asked == "champion" and seen.start is None:
        return "scratch", f"from scratch: {seen.no_start or 'there is no champion to go on from'}"
    why = "as asked" if said else "as retraining.start of params.yaml says"
    return asked, f"from {'the champion' if asked == 'champion' else 'scratch'}, {why}"


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"
