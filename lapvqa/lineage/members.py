"""The patients of each training, as row numbers name them, against the root that it recorded.

The chain of digests does not cover the lists of keys, since keys are erased from them: what a
training recorded of its patients does. Archives of one project have keys of their own (the demo's
is published), so each root is held against the key by which it was made, not against today's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyroaring import BitMap

from lapvqa.errors import ConfigError
from lapvqa.identity import find_key, key_id, known_keys
from lapvqa.lineage import ledger, merkle
from lapvqa.lineage.row_numbers import PATIENT, STUDY, RowNumbers, lost, unpacked
from lapvqa.lineage.runs import of_entry
from lapvqa.machine import load_machine
from lapvqa.params import load_params
from lapvqa.project import Project


@dataclass(frozen=True)
class Recorded:
    """A training that recorded how many patients it had, and the root of their digests."""

    run: str
    time: float
    patients: int
    root: str
    key: str | None
    """``key_id`` of the key of its digests; None where that key is not found here."""
    leaves: list[bytes]
    """Of those whom the row numbers name today, by that key; none without it."""
    is_as_recorded: bool
    """Whether the row numbers name the very patients whose root was recorded."""
    erased: bool
    """Whether some of them have no key any more, or none here."""


def project_key(project: Project) -> bytes | None:
    """Return the key that hides identifiers here, None if it is not known; makes none."""
    try:
        machine, inventory = load_machine(project), load_params(project.params).inventory
        return find_key(machine.folder("source", inventory, project), project, machine)
    except ConfigError:
        return None


def trainings(project: Project, *, newest_first: bool = False) -> Iterator[Recorded]:
    """Yield the trainings of the ledger that recorded a root, oldest first or newest."""
    keys, secrets = RowNumbers(project, PATIENT).keys(), _secrets(project)
    entries = ledger.entries(project)
    runs = {entry.id: run for entry in entries if (run := of_entry(entry))}
    for entry in reversed(entries) if newest_first else entries:
        if entry.kind != ledger.TRAINED_ON or not entry.payload:
            continue
        run = runs.get(entry.payload["run"])
        told = run.files.get(entry.payload["path"], {}).get("members") if run else None
        rows = BitMap.union(*(unpacked(r["patients"]) for r in entry.payload["roles"].values()))
        if told is None:
            continue
        own = [keys[row] for row in rows if row < len(keys)]
        yield Recorded(
            entry.payload["run"], entry.time, told["patients"], told["root"],
            *_held_against(told, own, secrets),
            erased=len(own) < len(rows) or any(not one.strip("-") for one in own),
        )  # fmt: skip


def _secrets(project: Project) -> dict[str, bytes]:
    try:
        return {key_id(key): key for key in known_keys(project, load_machine(project))}
    except ConfigError:
        return {}


def _held_against(
    told: Mapping[str, Any], own: Sequence[str], secrets: Mapping[str, bytes]
) -> tuple[str | None, list[bytes], bool]:
    """Return the key of a root, the leaves by it, and whether they have that root.

    A root without a key's name (older ledgers) is of the key by which it comes out, if any.
    """
    named = told.get("key")
    for name in secrets if named is None else secrets.keys() & {named}:
        tree = merkle.leaves(merkle.member_digest(secrets[name], one) for one in own)
        if named or merkle.root(tree) == told["root"]:
            return name, tree, merkle.root(tree) == told["root"]
    return None, [], False


def faults(project: Project) -> Iterator[str]:
    """Name what is wrong with the lists behind the row numbers: too short, or of others.

    Whose keys they are cannot be told of trainings whose key is not here. A study's key is held
    against nothing.
    """
    yield from _short(project)
    for training in trainings(project):
        if _is_told(training) and not training.is_as_recorded:
            yield _of_others(training)


def require(project: Project) -> None:
    """Raise ConfigError where the lists are too short, or not those of the newest training.

    A list only grows, so the newest training that can be told of covers the most of it; ``faults``
    takes the time to look at all.
    """
    if fault := next(_short(project), ""):
        raise lost(fault)
    newest = next(filter(_is_told, trainings(project, newest_first=True)), None)
    if newest is not None and not newest.is_as_recorded:
        raise lost(_of_others(newest))


def _short(project: Project) -> Iterator[str]:
    yield from filter(None, (RowNumbers(project, kind).fault() for kind in (PATIENT, STUDY)))


def _is_told(training: Recorded) -> bool:
    return training.key is not None and not training.erased


def _of_others(training: Recorded) -> str:
    return (
        f"ledger/private/{PATIENT}.txt: its keys are not those of the patients whose root "
        f"training {training.run[:12]} recorded"
    )
