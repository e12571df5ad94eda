"""Why a training is wanted: .lapvqa/wanted.json, one record to which all causes add up.

    causes   what no round has taken up yet: a row per cause and its facts, counted
    round    the round at work: its id, when it began, the causes that it took up

Any number of triggers leave one record: at most one round at work and one that is wanted. Changes
are made under a lock and by renaming, so a killed trigger has either asked or it has not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from lapvqa import storage
from lapvqa.project import Project

HAND, CLOCK, ARRIVAL, STUDIES, BYTES, ERASURE, PERFORMANCE, DRIFT = CAUSES = (
    "hand", "clock", "arrival", "studies", "bytes", "erasure", "performance", "drift",
)  # fmt: skip

_SAID = {
    HAND: "asked for by hand", CLOCK: "asked for by the clock", ARRIVAL: "something arrived",
    STUDIES: "enough studies arrived", BYTES: "enough bytes arrived",
    ERASURE: "a patient was erased", PERFORMANCE: "the champion does worse",
    DRIFT: "what arrives has changed",
}  # fmt: skip


@dataclass(frozen=True)
class Cause:
    """Why a training is wanted; ``first`` and ``last`` are ISO 8601 in UTC."""

    cause: str
    first: str
    last: str
    count: int = 1
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def said(cls, cause: str, when: datetime, facts: dict[str, Any] | None = None) -> Cause:
        """Return what was said once, at ``when``."""
        at = when.astimezone(UTC).isoformat()
        return cls(cause, at, at, 1, facts or {})

    @property
    def since(self) -> datetime:
        """When it was first said."""
        return datetime.fromisoformat(self.first)

    @property
    def until(self) -> datetime:
        """When it was last said."""
        return datetime.fromisoformat(self.last)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Round:
    """A round that took causes up."""

    id: str
    began: str
    causes: tuple[Cause, ...]
    way: str | None = None
    """Where its training begins, champion or scratch; None before it is decided to train."""
    start: str | None = None
    """sha256 of the champion's weights, if it begins there."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "causes": [cause.to_json() for cause in self.causes]}


@dataclass(frozen=True)
class Wanted:
    """The whole record."""

    causes: tuple[Cause, ...] = ()
    round: Round | None = None


def want(project: Project, cause: str, *, now: datetime | None = None, **facts: Any) -> None:
    """Say that a training is wanted because of ``cause``, one of ``CAUSES``.

    The same cause with the same facts is counted; another stands beside it. On disk on return.
    """
    if cause not in CAUSES:
        raise ValueError(f"expected a cause of {CAUSES}, found {cause!r}")
    new = Cause.said(cause, now or datetime.now(UTC), facts)
    change(project, lambda record: replace(record, causes=merged([*record.causes, new])))


def merged(causes: Iterable[Cause]) -> tuple[Cause, ...]:
    """Return one row per cause and facts, the oldest first."""
    rows: list[Cause] = []
    for one in causes:
        for number, known in enumerate(rows):
            if (known.cause, known.facts) == (one.cause, one.facts):
                rows[number] = replace(
                    known, first=min(known.first, one.first), last=max(known.last, one.last),
                    count=known.count + one.count,
                )  # fmt: skip
                break
        else:
            rows.append(one)
    return tuple(rows)


def in_words(causes: Iterable[Cause]) -> str:
    """Say why, as "asked for by hand, a patient was erased (2 times)"."""
    counted = Counter[str]()
    for one in causes:
        counted[one.cause] += one.count
    return ", ".join(
        _SAID[name] if times == 1 else f"{_SAID[name]} ({times} times)"
        for name, times in counted.items()
    )


def load(project: Project) -> Wanted:
    """Return the record, empty where nothing is wanted."""
    if not project.wanted.exists():
        return Wanted()
    told = storage.read_json(project.wanted, made_by="retrain")
    if "cause" in told:  # of earlier versions: one erasure
        at = datetime.fromtimestamp(told["since"], UTC).isoformat()
        return Wanted((Cause(ERASURE, at, at, 1, {"request": told.get("request")}),))
    at_work = told.get("round")
    return Wanted(
        _causes(told["causes"]),
        at_work and Round(**{**at_work, "causes": _causes(at_work["causes"])}),
    )


def change(project: Project, make: Callable[[Wanted], Wanted]) -> Wanted:
    """Replace the record by what ``make`` returns of it; no other writer comes between."""
    with storage.alone(project.wanted.with_suffix(".lock")):
        made = make(load(project))
        if made == Wanted():
            project.wanted.unlink(missing_ok=True)
        else:
            at_work = made.round and made.round.to_json()
            storage.write_json(
                project.wanted,
                {"causes": [cause.to_json() for cause in made.causes], "round": at_work},
            )
    return made


def _causes(rows: Iterable[dict[str, Any]]) -> tuple[Cause, ...]:
    return tuple(Cause(**row) for row in rows)
