"""What a test set was asked before: its looks in the ledger, and so what may still be spent.

A LOOK is written before scores are compared: {"manifest", "level", "patients" as row numbers, ...};
the DECISION that follows names it under ``look``. A look whose gate was killed has none, and is
spent like one that promoted nothing. Where candidate, champion, anchor, their predictions and the
rule are those of a look that has its verdict, another one would see the very same: it is not taken,
the verdict stands (``verdict_on``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pyroaring import BitMap

from lapvqa.evaluation.sealed import SealRule
from lapvqa.gate.budget import Budget, PastLook
from lapvqa.gate.verdict import Outcome
from lapvqa.lineage import ledger
from lapvqa.lineage.ledger import DECISION, LOOK, Draft, Entry
from lapvqa.lineage.row_numbers import PATIENT, RowNumbers, packed, unpacked
from lapvqa.project import Project

SHOWN = "shown"
"""The manifest of the test patients whose results everybody sees."""
GATE = "gate"


def manifest_of(rule: SealRule) -> str:
    """Return what the sealed patients of one rule are called."""
    return f"sealed {rule.round}".strip()


@dataclass(frozen=True)
class Account:
    """What a manifest was asked: its looks, oldest first."""

    manifest: str
    looks: tuple[PastLook, ...]
    seen: BitMap
    """Row numbers of the patients of earlier looks."""

    def left(self, budget: Budget) -> float:
        """Return what may still be spent."""
        return budget.left(self.looks)


def account(entries: Iterable[Entry], manifest: str) -> Account:
    """Return the account of one manifest."""
    own = [
        (entry.id, entry.payload)
        for entry in entries
        if entry.kind == LOOK and entry.payload and entry.payload.get("manifest") == manifest
    ]
    # A level comes back where it was passed; a contaminated champion's successor need not pass it.
    promoted = {
        said["look"] for said in decisions(entries)
        if said["verdict"] == Outcome.PROMOTE and not said.get("champion_contaminated")
    }  # fmt: skip
    looks = [PastLook(float(said["level"]), id in promoted) for id, said in own]
    seen = BitMap().union(*(unpacked(said["patients"]) for _, said in own)) if own else BitMap()
    return Account(manifest, tuple(looks), seen)


def decisions(entries: Iterable[Entry]) -> Iterator[dict[str, Any]]:
    """Yield what the gate has decided, oldest first."""
    yield from (said for _, said in _decided(entries))


def verdict_on(entries: Iterable[Entry], asked: Mapping[str, Any]) -> Entry | None:
    """Return the last verdict on a look that asked the same; None if none was taken.

    ``asked``: facts of the DECISION that tell one question from another.
    """
    found = [
        entry for entry, said in _decided(entries)
        if said.get("look") and all(said.get(name) == fact for name, fact in asked.items())
    ]  # fmt: skip
    return found[-1] if found else None


def _decided(entries: Iterable[Entry]) -> Iterator[tuple[Entry, dict[str, Any]]]:
    for entry in entries:
        if entry.kind == DECISION and entry.payload and entry.payload.get("what") == GATE:
            yield entry, entry.payload


def take(
    project: Project,
    manifest: str,
    patients: Iterable[str],
    budget: Budget,
    facts: Mapping[str, Any],
) -> tuple[str, float]:
    """Pay for a look before it is taken; return the id of its entry and the level granted.

    The level is reckoned and written in one step: two gates cannot spend the same.
    """
    rows = RowNumbers(project, PATIENT).number(patients)
    granted = 0.0

    def draft(before: list[Entry]) -> list[Draft]:
        nonlocal granted
        known = account(before, manifest)
        granted = budget.level(known.looks)
        said = {
            "what": GATE, "manifest": manifest, "level": granted, "patients": packed(rows),
            "number_of_patients": len(rows), "new_patients": len(rows - known.seen), **facts,
        }  # fmt: skip
        return [Draft(LOOK, said)]

    (look,) = ledger.extend(project, draft)
    return look, granted
