"""What `receive`, `pull` and `watch` share: their lines, their end, the way into the archive."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from flows.commands import own_files
from lapvqa.project import Project

if TYPE_CHECKING:
    from lapvqa.intake.filing import Filing
    from lapvqa.intake.inbox import Inbox
    from lapvqa.job import Job


def open_job(project: Project, command: str) -> Job:
    """Return the project's job for one of the commands; NotAllowedError if nothing can arrive."""
    from lapvqa.job import open_job as opened
    from lapvqa.recorder import Recorder

    job = opened(project, Recorder(project.record(command), stage=command, quiet=True))
    own_files.require_writable(job.folders["source"], "the archive (paths.source of local.yaml)")
    return job


def filing(project: Project, inbox: Inbox) -> Filing:
    """Return the way out of an inbox, with what has arrived before."""
    from lapvqa.intake.filing import Filing
    from lapvqa.intake.register import Register

    return Filing(project, inbox, say, Register.load(project.arrivals))


_saying = threading.Lock()


def say(line: str) -> None:
    """Print a line with the time; several threads do."""
    with _saying:
        stamp = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S")
        sys.stdout.write(f"{stamp} {line}\n")
        sys.stdout.flush()


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Yield what tells whether SIGINT or SIGTERM has come: the work then ends in good order."""
    event = threading.Event()
    before = {
        one: signal.signal(one, lambda number, frame: event.set())
        for one in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield event.is_set
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
