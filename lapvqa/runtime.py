"""The operating system: die with the parent, heed interrupts, cores and threads, GPU, compiler.

And of Python's own: how often it looks for garbage, and what a terminal cannot show.
"""

from __future__ import annotations

import codecs
import ctypes
import gc
import io
import os
import select
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_ESCAPED = "lapvqa.escaped"
_COMPILERS = {True: ("CC", "gcc", "clang", "cc"), False: ("CXX", "g++", "clang++", "c++")}


def die_with_parent(parent: int | None = None, *, by: signal.Signals = signal.SIGKILL) -> None:
    """Ask the kernel to send this process ``by`` when its parent dies (Linux).

    `dvc repro` killed by SIGKILL leaves its stage running, which then writes beside the next
    run's stage; this prevents it. ``parent``: its process id, where the caller knows it; a
    parent that died before this call is then noticed too.
    """
    parent = os.getppid() if parent is None else parent
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, by, 0, 0, 0)
    if os.getppid() != parent:  # the parent died before the call
        os.kill(os.getpid(), by)


def outlive_reader() -> None:
    """Let what this process prints go nowhere once the pipe that took it has no reader any more.

    Printing would fail otherwise, and with it the work, though nothing is wrong with that.
    """
    poll = select.poll()
    for descriptor in (1, 2):
        poll.register(descriptor, 0)  # whether a reader is gone is told unasked

    def watch() -> None:
        left = 2
        while left:
            for descriptor, _ in poll.poll():
                poll.unregister(descriptor)
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
                left -= 1

    threading.Thread(target=watch, name="outlive reader", daemon=True).start()


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn SIGTERM and SIGINT into KeyboardInterrupt, so that both clean up, ignored or not.

    nohup, a shell's ``&`` and some schedulers start what they start with SIGINT ignored, and
    Python then leaves it so.
    """

    def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.signal(one, interrupt) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextmanager
def signals_held() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait until the end.

    For what must not be cut short, and for imports of much: an exception that comes from nowhere
    may be swallowed there, or turned into another, by whoever catches all.
    """
    came: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    ours = (signal.SIGINT, signal.SIGTERM) if is_main else ()
    before = {one: signal.signal(one, lambda one, _: came.append(one)) for one in ours}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
        if came:
            signal.raise_signal(came[0])


@contextmanager
def starting_children() -> Iterator[None]:
    """Start processes that a Ctrl-C on the terminal never reaches; meanwhile it waits here.

    A child that is interrupted while it imports prints a traceback, and a pool of which the start
    is cut short leaves children that nobody ends.
    """
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # its start would let SIGINT through again
    with signals_held():
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # children inherit it
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def seldom_look_for_garbage() -> None:
    """Look for garbage after 200,000 new objects, not 700: most that a command makes lives on.

    Searched as is Python's habit, the modules of `lapvqa embed` cost a fifth more, and ingest's
    hundreds of thousands of names and rows twice as much.
    """
    gc.set_threshold(200_000)


def escape_what_cannot_be_shown() -> None:
    """Have characters that the output's encoding lacks printed as escapes: no command ends by one.

    A terminal's encoding may be ASCII, and a file's name may be bytes that are no text at all:
    they are shown as ``\\xff``, as everywhere.
    """
    codecs.register_error(_ESCAPED, _escape)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ESCAPED)


def _escape(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    characters = error.object[error.start : error.end]
    return "".join(map(_escaped, characters)), error.end


def _escaped(character: str) -> str:
    byte = ord(character) - 0xDC00
    if 0x80 <= byte <= 0xFF:  # one that os.fsdecode could not read (PEP 383)
        return f"\\x{byte:02x}"
    return character.encode("ascii", "backslashreplace").decode()


@contextmanager
def importing() -> Iterator[None]:
    """Look for no garbage while much is imported: there is none, and the search takes a sixth."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def one_blas_thread() -> None:
    """Have numpy's products computed on one thread, in this process and those it starts.

    OpenBLAS reads it when numpy is loaded. By itself it takes a thread per core, cuts products by
    their number and rounds otherwise: ranks and intervals would not be the same on two machines
    (docs/log.md). (torch has threads of its own: ``computing.cpu_threads``.)
    """
    os.environ["OPENBLAS_NUM_THREADS"] = "1"


def available_cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0))


def has_gpu(root: Path = Path("/")) -> bool:
    """Tell whether the machine has an NVIDIA GPU, usable or not: whether there is a file of one."""
    return any(root.glob("dev/nvidia[0-9]*"))


def compiler(*, for_gpu: bool) -> str | None:
    """Return the name of the compiler that torch.compile builds kernels with; None without one.

    Of C for a GPU (Triton's launchers), of C++ for a CPU.
    """
    variable, *names = _COMPILERS[for_gpu]
    candidates = (os.environ.get(variable), *names)
    found = next((name for name in candidates if name and shutil.which(name)), None)
    return found and Path(found).name
