"""One round at a time, whatever machine works on it: a lease in a file, renewed while its holder
lives.

The kernel's lock guards the moments in which the lease changes hands; the file says who has it. A
holder of this machine whose process is gone has lost it at once; one elsewhere, when its last beat
is ``LEASE_S`` old by the clock of the file system, which all machines that share it agree on.
"""

from __future__ import annotations

import os
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from lapvqa import storage
from lapvqa.errors import BusyError

LEASE_S = 30.0
_BEATS_A_LEASE = 3
_held: ContextVar[frozenset[Path]] = ContextVar("lapvqa_leases", default=frozenset())
"""What the code at work holds; other threads of this process are others."""


@contextmanager
def hold(
    path: Path, *, lease_s: float = LEASE_S, lost: Callable[[], None] | None = None
) -> Iterator[None]:
    """Hold the lease at ``path``, renewing it; BusyError if somebody else does.

    Within such a block it may be asked for again, which changes nothing. ``lost`` is called, from
    another thread, if the lease has gone to another while this process could not renew it; by
    default the process is told to end (SIGTERM).
    """
    if path in _held.get():
        yield
        return
    mine = {**_me(), "token": secrets.token_hex(8), "lease_s": lease_s}
    with _alone(path):
        _refuse_second(path)
        storage.write_json(path, mine)
    over = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, mine, over, lost or _end), daemon=True)
    beat.start()
    held = _held.set(_held.get() | {path})
    try:
        yield
    finally:
        _held.reset(held)
        over.set()
        beat.join()
        with _alone(path):
            if _read(path).get("token") == mine["token"]:
                path.unlink()


def refuse_second(path: Path) -> None:
    """Raise BusyError, as ``hold`` does, if somebody else who lives holds the lease."""
    with _alone(path):
        _refuse_second(path)


def is_held(path: Path) -> bool:
    """Tell whether somebody who lives holds the lease."""
    if not path.exists():
        return False
    with _alone(path):
        return _holder(path) is not None


def _beat(
    path: Path, mine: dict[str, Any], over: threading.Event, lost: Callable[[], None]
) -> None:
    while not over.wait(mine["lease_s"] / _BEATS_A_LEASE):
        with _alone(path):
            if _read(path).get("token") != mine["token"]:
                lost()
                return
            os.utime(path)


def _end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _refuse_second(path: Path) -> None:
    if (other := _holder(path)) is not None:
        raise BusyError(
            f"a round of retraining is at work: process {other['pid']} on {other['host']}",
            hint="wait for it: what is wanted is kept; `lapvqa status` shows what is running",
        )


def _holder(path: Path) -> dict[str, Any] | None:
    """Return who holds the lease and lives; the caller is alone."""
    told = _read(path)
    if not told:
        return None
    if told["host"] == os.uname().nodename:
        return told if _born(told["pid"]) == told["born"] else None
    probe = path.with_suffix(".now")
    probe.touch()
    # Whichever way: a clock that was set back must not keep a lease for ever.
    age = abs(probe.stat().st_mtime - path.stat().st_mtime)
    return told if age < told["lease_s"] else None


def _me() -> dict[str, Any]:
    return {
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "born": _born(os.getpid()),
    }


def _born(pid: int) -> int | None:
    """Return when a process was born, in ticks since the machine was; None if it is gone.

    No time of day: that of a process changes whenever the clock is set.
    """
    try:
        _, _, facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    except OSError:
        return None
    state, *others = facts.split()
    return None if state == "Z" else int(others[18])


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    told: dict[str, Any] = storage.read_json(path, made_by="retrain")
    return told


def _alone(path: Path) -> AbstractContextManager[None]:
    return storage.alone(path.with_suffix(".lock"))
