"""A round, from what is wanted to what became of it; cut off anywhere, it is taken up again.

What a round does to data and models is given to it (``Work``), so that the order of things is one
for the pipeline, for a worker of Prefect, and for a test that lives through two years in a second.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from lapvqa.gate import endpoints
from lapvqa.machine import load_machine
from lapvqa.params import Params, RetrainingParams, load_params
from lapvqa.project import Project
from lapvqa.retraining import lease, minutes, situation, starts, wanted
from lapvqa.retraining.decision import Answer, Decision, decide
from lapvqa.retraining.minutes import CUT_OFF, DECLINED, FAILED, TRAINED
from lapvqa.retraining.situation import Situation
from lapvqa.retraining.wanted import PERFORMANCE, Cause, Round, Wanted, merged


class Work(Protocol):
    """What a round does."""

    def look_for_drift(self) -> None:
        """Take in what is new and compare it with the reference; an alarm is a cause on record."""

    def count_new(self) -> int:
        """Take in what is new; return the studies to learn from that no training has seen."""

    def judge_champion(self) -> tuple[str, dict[str, Any] | None]:
        """Judge the champion on newly labelled patients: words, and facts if it has fallen."""

    def train(self, at_work: Round) -> dict[str, Any]:
        """Train, export, evaluate; return what the round's entry says of it."""

    def gate(self) -> dict[str, Any]:
        """Ask the gate about what was trained; promote or keep; return its verdict."""


@dataclass(frozen=True)
class Turn:
    """What came of asking: the last decision, and the round's outcome if there was one."""

    decision: Decision
    outcome: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


Clock = Callable[[], datetime]
Say = Callable[[str], None]


def ask(project: Project, now: datetime) -> tuple[Situation, Decision]:
    """Look and decide, without doing anything about it."""
    params = load_params(project.params)
    seen = situation.look(project, params, now)
    return seen, decide(seen, params.retraining, now)


def read_params(project: Project) -> Params:
    """Read params.yaml; ConfigError also where the gate could not judge a training by its rule."""
    params = load_params(project.params)
    endpoints.find_all(params.gate)
    return params


def take_turn(project: Project, work: Work, clock: Clock, say: Say) -> Turn:
    """Decide, and do what is decided; raises BusyError if another has the round.

    An error of the work ends the round: its causes are wanted again, and the error goes on. A
    death, or Ctrl-C, leaves the round to be resumed.
    """
    with lease.hold(project.round_lease):
        _close_cut_off(project, clock())
        situation.tick(project, clock())
        params = read_params(project)
        seen, rule = situation.look(project, params, clock(), holder=True), params.retraining
        decision = _decided(project, seen, rule, clock(), say)
        if decision.answer is Answer.LOOK_FOR_DRIFT:
            work.look_for_drift()
            seen = situation.look(project, params, clock(), holder=True)
            decision = _decided(project, seen, rule, clock(), say)
        if not decision.acts or decision.answer is Answer.LOOK_FOR_DRIFT:
            return Turn(decision)
        at_work = _begin(project, decision, seen, clock())
        facts: dict[str, Any] = {}
        try:
            while decision.answer in (Answer.LOOK, Answer.EVALUATE):
                seen = _look_closer(seen, decision, work, clock())
                decision = _decided(project, seen, rule, clock(), say)
            if decision.answer is Answer.TRAIN:
                at_work, facts = _settle_start(project, at_work, decision)
            if at_work.way is None:
                return _end(project, at_work, decision, DECLINED, clock())
            facts |= work.train(at_work)
            facts |= {"gate": work.gate()}
        except Exception as error:
            _end(project, at_work, decision, FAILED, clock(), error=type(error).__name__)
            raise
        return _end(project, at_work, decision, TRAINED, clock(), **facts)


def _decided(
    project: Project, seen: Situation, rule: RetrainingParams, now: datetime, say: Say
) -> Decision:
    decision = decide(seen, rule, now)
    minutes.record(project, decision, seen, rule, now)
    say(decision.said)
    return decision


def _look_closer(seen: Situation, decision: Decision, work: Work, now: datetime) -> Situation:
    if decision.answer is Answer.LOOK:
        return replace(seen, new=work.count_new())
    words, fallen = work.judge_champion()
    if fallen is None:
        return replace(seen, judged=words)
    worse = Cause.said(PERFORMANCE, now, fallen)
    return replace(seen, judged=words, causes=(*seen.causes, worse))


def _begin(project: Project, decision: Decision, seen: Situation, now: datetime) -> Round:
    """Move the causes that were seen from what is wanted to a round.

    What came since the look stays, but what says the same again, which is counted; what a training
    has answered goes.
    """

    def take(record: Wanted) -> Wanted:
        if decision.answer is Answer.RESUME:
            return record
        taken = [(one.cause, one.facts) for one in decision.causes]
        left = tuple(
            one
            for one in record.causes
            if (one.cause, one.facts) not in taken and not situation.is_answered(one, seen.answered)
        )
        began = now.astimezone(UTC).isoformat()
        causes = _as_counted(decision.causes, record.causes)
        return Wanted(left, Round(secrets.token_hex(6), began, causes))

    made = wanted.change(project, take).round
    assert made is not None
    return made


def _as_counted(causes: Iterable[Cause], counted: Sequence[Cause]) -> tuple[Cause, ...]:
    """Return the causes, each as it stands among those that were counted last, if it does."""
    return tuple(
        next((row for row in counted if (row.cause, row.facts) == (one.cause, one.facts)), one)
        for one in causes
    )


def _settle_start(
    project: Project, at_work: Round, decision: Decision
) -> tuple[Round, dict[str, Any]]:
    """Write down where the training begins, so that it is resumed there; and why not elsewhere."""
    way, digest, facts = decision.way, None, {}
    start = starts.champion(project) if way == "champion" else None
    if start is not None:
        digest = starts.provide(project, start)
        if refused := starts.unfit(project, start):
            way, digest, facts = "scratch", None, {"champion_refused": refused}
    settled = replace(
        at_work, way=way, start=digest, causes=_as_counted(decision.causes, at_work.causes)
    )
    wanted.change(project, lambda record: replace(record, round=settled))
    return settled, facts


def _end(
    project: Project, at_work: Round, decision: Decision, outcome: str, now: datetime, **facts: Any
) -> Turn:
    """Write what became of the round, then take it off the record; its causes are answered.

    Not those of a round that failed, or that has to wait: they are wanted again. What was wanted
    between its look and its training, that training has answered as well.
    """
    costs = minutes.costs(project, load_machine(project), now)
    late = [
        one for one in wanted.load(project).causes if situation.is_answered(one, costs.answered)
    ]
    at_work = replace(at_work, causes=merged([*at_work.causes, *late]))
    minutes.close(project, at_work, outcome, decision.why, now, **facts)
    again = outcome in (FAILED, CUT_OFF) or decision.answer is Answer.WAIT
    back = at_work.causes if again else ()
    wanted.change(
        project,
        lambda record: Wanted(merged([*back, *(one for one in record.causes if one not in late)])),
    )
    return Turn(decision, outcome, facts)


def _close_cut_off(project: Project, now: datetime) -> None:
    """End a round whose worker died before it was decided that there is a training."""
    left = wanted.load(project).round
    if left is not None and left.way is None:
        why = f"its worker died while it looked; {wanted.in_words(left.causes)}"
        _end(project, left, Decision(Answer.WAIT, why), CUT_OFF, now)
