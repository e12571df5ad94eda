"""Decisions and rounds in the ledger, and what trainings have cost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lapvqa.lineage import ledger, recording
from lapvqa.lineage.ledger import DECISION, Draft, Entry
from lapvqa.lineage.runs import FINISHED, Run
from lapvqa.machine import Machine
from lapvqa.project import Project
from lapvqa.retraining import calendar
from lapvqa.retraining.wanted import Round

if TYPE_CHECKING:
    from lapvqa.params import RetrainingParams
    from lapvqa.retraining.decision import Decision
    from lapvqa.retraining.situation import Situation

RETRAINING, ROUND = "retraining", "retraining round"
"""What an entry of kind DECISION is ``about``."""
TRAINED, DECLINED, FAILED, CUT_OFF = "trained", "declined", "failed", "cut off"
"""What became of a round."""
_HOUR = 3600.0


@dataclass(frozen=True)
class Costs:
    """Of trainings: when the run began that had the last one, and hours."""

    began: datetime | None
    """None also where that is still to come: the clock has been set back."""
    answered: datetime | None
    """As ``began``, of the last one whose round did not fail after it."""
    hours_spent: float
    """This month, also of those that failed."""
    hours_expected: float
    """Of the last whole one; 0 before there is any."""


def costs(project: Project, machine: Machine, now: datetime) -> Costs:
    """Return what the ledger tells of the trainings of this project."""
    month = calendar.month_of(now).timestamp()
    told = recording.told(project)
    trainings = [run for run in told if run.stage == "pretrain" and run.seconds]
    whole = [run for run in trainings if run.outcome == FINISHED]
    failed = _failed(project)
    kept = [
        run for run in whole
        if not any(first <= run.started <= last for first, last in failed)
    ]  # fmt: skip
    processes = machine.training.processes * machine.training.nodes
    spent = sum(run.seconds for run in trainings if month <= run.started <= now.timestamp())
    last = whole[-1] if whole else None
    return Costs(
        _began(last, told, now),
        _began(kept[-1] if kept else None, told, now),
        spent * processes / _HOUR,
        (last.seconds if last else 0.0) * processes / _HOUR,
    )


def record(
    project: Project, decision: Decision, seen: Situation, rule: RetrainingParams, now: datetime
) -> bool:
    """Write a decision, its inputs and its rule; False, and nothing, if the last said the same.

    That is: the same answer for the same reason, to causes of the same names.
    """
    about = {"about": RETRAINING, "decision": decision.said}
    inputs, written = seen.to_json(), rule.model_dump(mode="json")
    payload = {**about, **decision.to_json(), "inputs": inputs, "rule": written}

    def drafts(before: list[Entry]) -> list[Draft]:
        said = next((one for entry in reversed(before) if (one := _said(entry, None))), None)
        again = said and _in_short(said) == _in_short(payload)
        return [] if again else [Draft(DECISION, payload, now.timestamp())]

    return bool(ledger.extend(project, drafts))


def close(
    project: Project, at_work: Round, outcome: str, why: str, now: datetime, **facts: Any
) -> None:
    """Write what became of a round, once."""
    payload = {
        "about": ROUND, "decision": f"round {at_work.id}: {outcome}", "outcome": outcome,
        "why": why, **at_work.to_json(), **facts,
    }  # fmt: skip

    def drafts(before: list[Entry]) -> list[Draft]:
        known = any(said["id"] == at_work.id for said in _all(before, ROUND))
        return [] if known else [Draft(DECISION, payload, now.timestamp())]

    ledger.extend(project, drafts)


def rounds(project: Project) -> list[dict[str, Any]]:
    """Return what the ledger says of all rounds that ended, oldest first."""
    return _all(ledger.entries(project), ROUND)


def _in_short(said: dict[str, Any]) -> tuple[Any, ...]:
    return said.get("answer"), said["why"], [cause["cause"] for cause in said["causes"]]


def _all(entries: list[Entry], what: str) -> list[dict[str, Any]]:
    return [said for entry in entries if (said := _said(entry, what))]


def _said(entry: Entry, what: str | None) -> dict[str, Any] | None:
    """Return what an entry says, if it is about that; None: about a decision or a round."""
    about = (entry.payload or {}).get("about") if entry.kind == DECISION else None
    return entry.payload if about in ((what,) if what else (RETRAINING, ROUND)) else None


def _began(training: Run | None, told: list[Run], now: datetime) -> datetime | None:
    """Return when the run of the pipeline began that had this training."""
    if training is None:
        return None
    flow = training.prefect_flow_run
    together = [run.started for run in told if flow and run.prefect_flow_run == flow]
    began = datetime.fromtimestamp(min(together, default=training.started), UTC)
    return began if began <= now else None


def _failed(project: Project) -> list[tuple[float, float]]:
    """Return from when to when each round lasted that failed, in seconds since the epoch."""
    return [
        (datetime.fromisoformat(said["began"]).timestamp(), entry.time)
        for entry in ledger.entries(project)
        if (said := _said(entry, ROUND)) and said["outcome"] == FAILED
    ]
