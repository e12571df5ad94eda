"""The frozen reference: the studies that new ones are compared with, and their digest.

The list lies in .lapvqa/work/drift, a line per study; the ledger has its digest. An erasure drops
the lines of its patient: that is said, every other change is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from lapvqa import storage
from lapvqa.drift.arrivals import write_lines
from lapvqa.errors import SchemaError
from lapvqa.lineage import ledger
from lapvqa.project import Project

_AGAIN = "freeze a new one: `lapvqa drift --freeze`"


@dataclass(frozen=True)
class Reference:
    """The studies (keys) that are left of it; ``lost``: how many an erasure took."""

    studies: frozenset[str]
    at: float
    """When it was frozen, seconds since the epoch."""
    digest: str
    """Of all that were frozen, as the ledger has it."""
    lost: int


def freeze(project: Project, studies: Iterable[str], now: float) -> Reference:
    """Make these studies the reference; the ledger is told."""
    chosen = sorted(set(studies))
    digest = _digest(chosen)
    write_lines(project.drift_reference, [{"study": key} for key in chosen])
    said = {"what": "reference", "at": now, "studies": len(chosen), "digest": digest}
    ledger.append(project, ledger.DRIFT, said)
    return Reference(frozenset(chosen), now, digest, 0)


def read(project: Project) -> Reference | None:
    """Return the reference; None if none was frozen, SchemaError if it is not what was frozen."""
    told = [
        entry.payload
        for entry in ledger.entries(project)
        if entry.kind == ledger.DRIFT and entry.payload and entry.payload["what"] == "reference"
    ]
    if not told:
        return None
    said = told[-1]
    studies = sorted(line["study"] for line in storage.read_json_lines(project.drift_reference))
    lost = said["studies"] - len(studies)
    if (lost == 0 and _digest(studies) != said["digest"]) or lost < 0 or not studies:
        raise SchemaError(
            f"expected the {said['studies']} studies of the drift reference as they were frozen, "
            f"found {len(studies)} others",
            hint=_AGAIN,
        )
    return Reference(frozenset(studies), said["at"], said["digest"], lost)


def _digest(studies: list[str]) -> str:
    return hashlib.sha256("\n".join(studies).encode()).hexdigest()
