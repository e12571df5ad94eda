"""Run a child process: its output line by line, its process group gone when we leave."""

from __future__ import annotations

import codecs
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

GRACE_S = 10.0
"""How long an interrupted stage may take to put its work away before it is killed."""

_POLL_S = 0.5


def run(
    command: list[str],
    *,
    cwd: Path,
    environment: dict[str, str],
    on_line: Callable[[str], None],
) -> int:
    """Run ``command`` and return its exit code; ``on_line`` gets each line it prints.

    Lines end at ``\\n`` or ``\\r``. On any exception, a signal's included, the child's process
    group gets SIGINT, then ``GRACE_S`` seconds, then SIGKILL; the exception goes on. If this
    process dies, however it dies, the group dies with it (``tasks.guard``).
    """
    child = subprocess.Popen(
        [sys.executable, "-m", "tasks.guard", str(os.getpid()), *command],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        for line in _lines(child):
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


def _lines(child: subprocess.Popen[bytes], *, until: float = float("inf")) -> Iterator[str]:
    """Yield lines until the child has ended and its output is read, or the time is up."""
    assert child.stdout is not None
    descriptor = child.stdout.fileno()
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pending = ""
    while time.monotonic() < until:
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
