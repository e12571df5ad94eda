"""One worker process of the pool: tasks in at standard input, results out at standard output.

It may be killed at any moment: it holds one file and writes nothing but messages (pickles, each
behind its length). It dies with the pool, ignores Ctrl-C (the pool's process answers it), leaves no
core dump (patients' data), and uses one thread.
"""

from __future__ import annotations

import os
import pickle
import resource
import signal
import struct
import traceback
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import IO, Any

from lapvqa import runtime
from lapvqa.dicom.reasons import Reason
from lapvqa.ingest.one_file import Context, FileResult, Task, process_file, rejected, unread

READY = "ready"
"""Its first message; then, for each Task, a FileResult and whether it was the last."""
_WORN_SHARE = 0.5
_LENGTH = struct.Struct("<Q")


def main() -> None:
    """Answer tasks until the pool closes the pipe, or until memory leaked away."""
    # Not at the top: the pool imports this module for its messages, and decodes nothing itself.
    import cv2

    from lapvqa.dicom import self_test
    from lapvqa.dicom.render import read_image

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    cv2.setNumThreads(1)
    tasks, results = _own_streams()
    try:
        parent, context = receive(tasks)
        runtime.die_with_parent(parent)
        # Loads what the first image would load, so that it does not count as that file's memory.
        read_image(self_test.data_of(self_test.SAMPLES[0]))
        start = _address_space()
        allowed = context.limits.memory_mb << 20
        _limit_address_space(start + allowed)
        send(results, READY)
        is_worn = False
        while not is_worn:
            result = _result(receive(tasks), context)
            # Decoders leak. A worn worker would reject files that a fresh one can read.
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
    """Process one file; a fault of our own rejects that file too, and says where it is."""
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


def send(stream: IO[bytes], message: object) -> None:
    """Write one message."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(body)) + body)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """Wait for one message of a blocking ``stream``; raises EOFError where it ends."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    return pickle.loads(stream.read(length))


class Inbox:
    """Puts messages together from the pieces in which they arrive."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, piece: bytes) -> Iterator[Any]:
        """Yield the messages that ``piece`` completes."""
        self._bytes += piece
        while len(self._bytes) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._bytes)
            end = _LENGTH.size + length
            if len(self._bytes) < end:
                return
            body = bytes(self._bytes[_LENGTH.size : end])
            del self._bytes[:end]
            yield pickle.loads(body)


if __name__ == "__main__":
    main()
