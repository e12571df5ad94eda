"""One worker process of ``workers``: tasks in at standard input, results out at standard output.

It may be killed at any moment: it holds one file and writes nothing but messages. It dies with
the pool, ignores Ctrl-C (the pool's process answers it), leaves no core dump (patients' data),
and uses one thread.
"""

from __future__ import annotations

import os
import resource
import signal
import traceback
from pathlib import Path, PurePath
from typing import IO

import cv2

from lapvqa import runtime
from lapvqa.dicom.reasons import Reason
from lapvqa.dicom.render import read_image
from lapvqa.dicom.samples import self_test
from lapvqa.ingest.messages import receive, send
from lapvqa.ingest.one_file import Context, Task, process_file, rejected, unread
from lapvqa.ingest.results import FileResult

READY = "ready"
"""Its first message; then a FileResult for each Task, and whether this was its last."""
_WORN_SHARE = 0.5


def main() -> None:
    """Answer tasks until the pool closes the pipe, or until memory leaked away."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    cv2.setNumThreads(1)
    tasks, results = _own_streams()
    try:
        parent, context = receive(tasks)
        runtime.die_with_parent(parent)
        # Loads what is loaded at the first image only, so that it is not counted as the file's.
        read_image(self_test.data_of(self_test.SAMPLES[0]))
        start = _address_space()
        allowed = context.limits.memory_mb << 20
        _limit_address_space(start + allowed)
        send(results, READY)
        is_worn = False
        while not is_worn:
            result = _result(receive(tasks), context)
            # Decoders leak. A worn worker would turn away files that a fresh one can read.
            is_worn = _address_space() - start > _WORN_SHARE * allowed
            send(results, (result, is_worn))
    except (EOFError, BrokenPipeError):  # the pool is done, or dead
        return


def _own_streams() -> tuple[IO[bytes], IO[bytes]]:
    """Move the pipes off 0 and 1: decoders print to standard output, and that must not mix."""
    tasks, results = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return os.fdopen(tasks, "rb"), os.fdopen(results, "wb")


def _result(task: Task, context: Context) -> FileResult:
    """Process one file; a fault of ours costs that file too, and says where it is."""
    try:
        return process_file(task, context)
    except Exception as error:  # noqa: BLE001 - its text may quote the file
        name = type(error).__name__
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return rejected(
            unread(task, context.keyring, context.split_seed),
            Reason.DECODER_CRASHED,
            f"unexpected {name} in {PurePath(frame.filename).name}, line {frame.lineno}",
            name,
        )


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _limit_address_space(limit: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


if __name__ == "__main__":
    main()
