"""Who is the champion, who was before, and what is still to be done, as the ledger tells.

A DECISION comes first (a verdict to promote, or a rollback), then the registry's alias moves, then
an entry of kind MODEL with the alias and the decision's id says that it has moved. So what a killed
gate left open is known: a decision that no such entry names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lapvqa.gate import looks
from lapvqa.gate.verdict import Outcome
from lapvqa.lineage import runs
from lapvqa.lineage.ledger import CHAMPION, DECISION, MODEL, Entry

ROLLBACK, DROPPED = "rollback", "dropped"
WITHOUT_GATE = (
    "an earlier version set the alias champion without a gate, `lapvqa gate` judges what was "
    "exported"
)


@dataclass(frozen=True)
class Move:
    """The alias is to move: from these weights (sha256; empty: no champion) to those."""

    decision: str
    before: str
    to: str
    promotion: bool
    """By a verdict; else a person went back."""
    optimistic: bool


def pending(entries: Sequence[Entry]) -> Move | None:
    """Return the last decision to move the alias, if nothing says yet what came of it."""
    closed = {said["decision"] for _, said in moves(entries)}
    closed |= {
        said["of"] for entry in entries
        if entry.kind == DECISION and (said := entry.payload) and said.get("what") == DROPPED
    }  # fmt: skip
    for entry in reversed(entries):
        move = _as_move(entry)
        if move is not None:
            return None if move.decision in closed else move
    return None


def anchor(entries: Iterable[Entry]) -> str | None:
    """Return the weights of the first champion that a gate has made."""
    return next((move.to for entry in entries if (move := _as_move(entry))), None)


def predecessor(entries: Iterable[Entry], sha256: str) -> str | None:
    """Return the weights that were champion before these were promoted; None if none were."""
    found = None
    for entry in entries:
        move = _as_move(entry)
        if move and move.to == sha256 and move.promotion:
            found = move.before or None
    return found


def rolled_back(entries: Iterable[Entry], sha256: str) -> bool:
    """Tell whether a person has gone back from these weights since they were last promoted."""
    back = False
    for entry in entries:
        move = _as_move(entry)
        if move is not None and move.promotion:
            back = back and move.to != sha256
        elif move is not None and move.before == sha256:
            back = True
    return back


def contaminated(entries: Sequence[Entry]) -> frozenset[str]:
    """Return the sha256 of all that was made of trainings that saw a patient who is erased now."""
    told = {entry.id: run for entry in entries if (run := runs.of_entry(entry))}
    reached: set[str] = set()
    for entry in entries:
        said = entry.payload if entry.kind == DECISION else None
        if said and said.get("verdict") == "contaminated":
            reached.update(said["runs"])
    for id, run in told.items():  # oldest first: a consumer comes after its source
        if reached.intersection(run.sources.values()):
            reached.add(id)
    made = (facts for id in reached & told.keys() for facts in told[id].files.values())
    return frozenset(facts["sha256"] for facts in made if "sha256" in facts)


def last_move(entries: Iterable[Entry]) -> dict[str, Any] | None:
    """Return what the ledger says of the last move of the alias; None before the first."""
    return next((said for _, said in reversed(list(moves(entries)))), None)


def moves(entries: Iterable[Entry]) -> Iterator[tuple[Entry, dict[str, Any]]]:
    """Yield each move of the alias that a gate or a person decided, and what it says."""
    yield from ((entry, said) for entry, said in _aliased(entries) if "decision" in said)


def is_set_without_gate(entries: Sequence[Entry]) -> bool:
    """Tell whether nobody but an earlier version has set the alias: that was no champion."""
    return any(_aliased(entries)) and not any(moves(entries))


def _aliased(entries: Iterable[Entry]) -> Iterator[tuple[Entry, dict[str, Any]]]:
    for entry in entries:
        said = entry.payload if entry.kind == MODEL else None
        if said and CHAMPION in (said.get("aliases") or ()):
            yield entry, said


def _as_move(entry: Entry) -> Move | None:
    said = entry.payload if entry.kind == DECISION else None
    if not said or not (_is_promotion(entry) or said.get("what") == ROLLBACK):
        return None
    return Move(
        entry.id, said["champion"], said["candidate"], _is_promotion(entry),
        bool(said.get("optimistic")),
    )  # fmt: skip


def _is_promotion(entry: Entry) -> bool:
    said = entry.payload or {}
    return said.get("what") == looks.GATE and said.get("verdict") == Outcome.PROMOTE
