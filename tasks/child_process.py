"""Run a child process that never outlives its starter, and take its output line by line.

`dvc repro` killed by SIGKILL leaves its stage running, and a stage may have workers of its own.
So the child is started through a guard (``python -m tasks.child_process PARENT COMMAND...``), which
leads their process group; the kernel tells the guard of the starter's death (however it died), and
it takes the whole group down.
"""

from __future__ import annotations

import codecs
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from lapvqa.runtime import die_with_parent

GRACE_S = 10.0
"""How long an interrupted stage may take to put its work away before it is killed."""

_POLL_S = 0.5


def run(
    command: list[str],
    *,
    cwd: Path,
    environment: dict[str, str],
    on_line: Callable[[str], None],
    stop: threading.Event | None = None,
) -> int:
    """Run ``command`` and return its exit code; ``on_line`` gets each line it prints.

    Lines end at ``\\n`` or ``\\r``. On any exception, a signal's included, the child's process
    group gets SIGINT, then ``GRACE_S`` seconds, then SIGKILL; the exception goes on. So it is with
    KeyboardInterrupt, which is raised here soon after ``stop`` is set: threads get no signals. If
    this process dies, however it dies, the group dies with it (the guard).
    """
    child = subprocess.Popen(
        [sys.executable, "-m", "tasks.child_process", str(os.getpid()), *command],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        for line in _lines(child, stop=stop):
            on_line(line)
        return child.wait()
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGINT)
        for line in _lines(child, until=time.monotonic() + GRACE_S):
            on_line(line)
        raise
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if child.stdout:
            child.stdout.close()


def _lines(
    child: subprocess.Popen[bytes],
    *,
    until: float = float("inf"),
    stop: threading.Event | None = None,
) -> Iterator[str]:
    """Yield lines until the child has ended and its output is read, or the time is up."""
    assert child.stdout is not None
    descriptor = child.stdout.fileno()
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pending = ""
    while time.monotonic() < until:
        if stop is not None and stop.is_set():
            raise KeyboardInterrupt
        if not select.select([descriptor], [], [], _POLL_S)[0]:
            if child.poll() is not None:  # a process that left the group still holds the pipe
                break
            continue
        data = os.read(descriptor, 65536)
        if not data:
            break
        *whole, pending = re.split(r"[\r\n]", pending + decoder.decode(data))
        yield from filter(None, whole)
    if pending:
        yield pending


def _kill_group(_signal: int, _frame: FrameType | None) -> NoReturn:
    os.killpg(os.getpgrp(), signal.SIGKILL)
    raise SystemExit  # not reached: this process is in the group


def _wait_on(_signal: int, _frame: FrameType | None) -> None:
    """Let the command end by itself on SIGINT; SIG_IGN would be inherited by it."""


def main(arguments: list[str]) -> int:
    """Guard one command: return its exit code, 128 + signal if a signal ended it."""
    parent, command = int(arguments[0]), arguments[1:]
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, _kill_group)
    signal.signal(signal.SIGINT, _wait_on)
    die_with_parent(parent, by=signal.SIGTERM)
    code = subprocess.Popen(command).wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
