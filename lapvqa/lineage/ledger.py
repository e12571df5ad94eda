"""The ledger: what happened to this project, in ledger/, beside dvc.lock and under git like it.

    chain.jsonl      a line per entry: kind, time, digest of the salted payload, id. An id covers
                     the one before it, so no entry can be changed, moved or taken out unseen.
    payloads.jsonl   what each entry says, with its salt. A payload can be erased: the chain of
                     digests still verifies, and the salt keeps anyone from guessing what it said.

Append-only, one writer at a time, on disk before ``append`` returns. The end of a chain can be cut
off unseen unless its last id is known elsewhere: receipts and signatures name it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import time as clock
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lapvqa import storage
from lapvqa.errors import SchemaError
from lapvqa.project import Project

FIRST = "0" * 64
"""Stands for the id before the first entry's."""
_TAIL = 256  # bytes that tell whether a file has only grown

RUN, CODE, PATCH, TRAINED_ON = "run", "code", "patch", "trained-on"
MODEL, DECISION, WAIVER, LOOK, ERASURE, IMPORT, RELEASE, ARRIVAL, DRIFT = (
    "model", "decision", "waiver", "look", "erasure", "import", "release", "arrival",
    "drift",
)  # fmt: skip
"""Kinds of entries: ``lapvqa.lineage.runs`` says what stands in the first four."""
CHAMPION = "champion"
"""The alias of a registered model (an entry of kind MODEL) that a gate has passed."""


@dataclass(frozen=True)
class Entry:
    """One entry; ``payload`` is None once it has been erased."""

    number: int
    """From 0, in the order of writing."""
    id: str
    kind: str
    time: float
    """Seconds since the epoch, of the writing."""
    payload: dict[str, Any] | None


@dataclass(frozen=True)
class Draft:
    """An entry that is yet to be written."""

    kind: str
    payload: dict[str, Any]
    time: float | None = None
    """Seconds since the epoch; now if None."""


def append(project: Project, kind: str, payload: dict[str, Any]) -> str:
    """Add an entry and flush it to disk; return its id. Safe with several writers."""
    return extend(project, lambda _: [Draft(kind, payload)])[0]


def extend(project: Project, make: Callable[[list[Entry]], list[Draft]]) -> list[str]:
    """Add the entries that ``make`` returns, given all that are there; return their ids.

    No other writer comes between the look and the writing.
    """
    with _locked(project) as descriptor:
        _cut_torn_line(descriptor)
        before = entries(project)
        return [_append(project, descriptor, draft) for draft in make(before)]


def entries(project: Project) -> list[Entry]:
    """Return all entries, oldest first; damaged lines are left out, and named by ``verify``."""
    payloads = {item["id"]: item["payload"] for item in _lines(project.ledger_payloads)}
    return [
        Entry(number, link["id"], link["kind"], link["time"], payloads.get(link["id"]))
        for number, link in enumerate(_lines(project.ledger))
    ]


def erase_payloads(project: Project, ids: Collection[str], why: dict[str, Any]) -> str:
    """Take what these entries say off the disk; return the id of the entry that tells of it.

    ``why`` goes into that entry of kind ERASURE, under ``ids`` the ids. The chain stays as it is.
    Killed and called again, it goes on.
    """
    erasure = append(project, ERASURE, {**why, "ids": sorted(ids)})
    with _locked(project):
        kept = [line for line in _lines(project.ledger_payloads) if line["id"] not in ids]
        storage.write_bytes(project.ledger_payloads, b"".join(map(_line, kept)))
    return erasure


def head(project: Project) -> str:
    """Return the id of the last entry: it stands for the whole history; FIRST if there is none."""
    links = _lines(project.ledger)
    return str(links[-1]["id"]) if links else FIRST


def part(project: Project, ids: Collection[str]) -> tuple[bytes, bytes]:
    """Return the chain up to the last of these entries, and what these alone say, as the files.

    ``verify`` holds for the two: digests of what is left out stay in the chain.
    """
    links, found = [], 0
    for link in _lines(project.ledger):
        links.append(_line(link))
        if link["id"] in ids:
            found = len(links)
    said = [_line(item) for item in _lines(project.ledger_payloads) if item["id"] in ids]
    return b"".join(links[:found]), b"".join(said)


def verify(project: Project, *, partly: bool = False) -> list[str]:
    """Return what does not match, first things first; nothing if all does.

    ``partly``: entries of which nothing is said are no fault, as in a ledger that ``part`` made.
    """
    faults = []
    _known.clear()
    salted = {item["id"]: item for item in _lines(project.ledger_payloads)}
    erased = {
        id
        for entry in entries(project)
        if entry.kind == ERASURE and entry.payload
        for id in entry.payload.get("ids", [])
    }
    previous = FIRST
    whole, _, torn = _read(project.ledger).rpartition(b"\n")
    last = [torn] if b"}" in torn else []  # else its writer died, and nobody was told of it
    for number, line in enumerate([*whole.splitlines(), *last], start=1):
        link = _parsed(line)
        place = f"ledger/chain.jsonl line {number}"
        if link is None:
            faults.append(f"{place}: expected an entry, found something unreadable")
            continue
        if link["id"] != _link_id(previous, link):
            faults.append(f"{place}: the entry was changed, or one before it was taken out")
        item = salted.get(link["id"])
        if item is None and link["id"] not in erased and not partly:
            faults.append(f"{place}: what it says is missing, and no erasure names it")
        if item is not None and _digest(item) != link["digest"]:
            faults.append(f"{place}: what it says was changed in ledger/payloads.jsonl")
        previous = link["id"]
    chained = {link["id"] for link in _lines(project.ledger)}
    said = [id for id in salted if id not in chained]
    if said and said != list(salted)[-1:]:  # the last one alone: its writer died between the two
        faults.append(f"ledger/chain.jsonl: its end is cut off, {len(said)} entries are missing")
    return faults


def require_whole(project: Project) -> None:
    """Raise SchemaError where the ledger does not verify: nothing shall be told from such a one."""
    faults = verify(project)
    if faults:
        raise SchemaError(
            f"the ledger does not verify: {faults[0]}",
            hint="restore ledger/ from git or a backup; `lapvqa lineage verify` says more",
        )


def _append(project: Project, descriptor: int, draft: Draft) -> str:
    previous = head(project)
    item = {"salt": secrets.token_hex(16), "payload": draft.payload}
    link = {
        "kind": draft.kind,
        "time": round(clock.time() if draft.time is None else draft.time, 3),
        "digest": _digest(item),
    }
    link["id"] = _link_id(previous, link)
    # The payload first: an entry whose payload is missing would look erased.
    with project.ledger_payloads.open("ab+") as payloads:
        _cut_torn_line(payloads.fileno())
        _cut_unchained(project, payloads.fileno())
        payloads.write(_line({"id": link["id"], **item}))
        payloads.flush()
        os.fsync(payloads.fileno())
    _write_all(descriptor, _line(link))
    os.fsync(descriptor)
    return str(link["id"])


def _link_id(previous: str, link: dict[str, Any]) -> str:
    facts = json.dumps([previous, link["kind"], link["time"], link["digest"]])
    return hashlib.sha256(facts.encode()).hexdigest()


def _digest(item: dict[str, Any]) -> str:
    return hashlib.sha256(item["salt"].encode() + _line(item["payload"])).hexdigest()


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False).encode() + b"\n"


@dataclass(frozen=True)
class _Known:
    """What this process has read of a file: its inode, how many bytes, how they end, the lines."""

    inode: int
    size: int
    tail: bytes
    lines: list[dict[str, Any]]


_known: dict[Path, _Known] = {}


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a file; what this process has read before is not parsed again.

    The file only grows, or is replaced by another inode: years of runs cost nothing per entry.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return []
    with file:
        inode = os.fstat(file.fileno()).st_ino
        known = _known.get(path)
        if known is not None and known.inode == inode:
            file.seek(known.size - len(known.tail))
        if known is None or known.inode != inode or file.read(len(known.tail)) != known.tail:
            known = _Known(inode, 0, b"", [])
            file.seek(0)
        added = file.read()
    whole, _, torn = added.rpartition(b"\n")
    lines = known.lines + [line for line in map(_parsed, whole.splitlines()) if line is not None]
    size = known.size + len(added) - len(torn)
    tail = (known.tail + added[: len(added) - len(torn)])[-_TAIL:]
    _known[path] = _Known(inode, size, tail, lines)
    last = _parsed(torn)
    return lines if last is None else [*lines, last]


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    known = {"kind", "time", "digest"}, {"salt", "payload"}
    if isinstance(value, dict) and "id" in value and any(keys <= set(value) for keys in known):
        return value
    return None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


@contextmanager
def _locked(project: Project) -> Iterator[int]:
    """Yield a descriptor of the chain, which no other writer holds."""
    project.ledger.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(project.ledger, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _cut_torn_line(descriptor: int) -> None:
    """Cut off a last line without an end: its writer died before anyone was told of the entry."""
    size = os.fstat(descriptor).st_size
    end = size
    while end:
        start = max(0, end - 4096)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(descriptor, end)


def _cut_unchained(project: Project, descriptor: int) -> None:
    """Cut off a last payload whose link is missing: its writer died, or the disk was full."""
    said = _lines(project.ledger_payloads)
    if said and all(link["id"] != said[-1]["id"] for link in reversed(_lines(project.ledger))):
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - len(_line(said[-1])))


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
