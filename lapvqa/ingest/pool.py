"""Read many files in many processes; a file that crashes, hangs or exhausts memory is one reject.

A pool of plain child processes (``worker``), not of ``multiprocessing``: it also runs inside a
daemonic process, such as a Dask worker. A worker has one file in hand and one waiting, so it
never idles; the pool knows which is in hand, and blames a death or a timeout on it.

A file is rejected for a crash, or for running out of memory, only by a fresh worker that holds
nothing else. If it happens to a worker that has seen other files, the file is tried again in such a
one. So the outcome depends on the file alone, and a worker killed from outside costs nothing.

A worker takes a second to start, in which a hundred files could be read. So one starts, and the
others when it has worked as long as it took to start: a few files cost one start, and many files
are late by no more than that.

Memory: ``limits.memory_mb`` per worker, two results per worker in the pool. Results are read when
they are asked for; until then the workers wait. The pool's thread must live as long as the pool:
Linux ties a worker to the thread that started it.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain

from lapvqa.dicom.reasons import Reason
from lapvqa.errors import LapvqaError
from lapvqa.ingest.one_file import Batch, Context, FileResult, Task, rejected, unread
from lapvqa.ingest.worker import Inbox, send

_QUEUED = 2
_START_SECONDS = 120.0
_START_TRIALS = 3
_PIPE_BYTES = 1 << 20
_LAST_WORDS = 4096
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
# Printed by C++, Rust and Python when they end because memory ran out.
_OUT_OF_MEMORY = (b"bad_alloc", b"memory allocation of", b"MemoryError")


def process_all(
    batches: Iterable[Batch], context: Context, *, workers: int, at_once: bool = False
) -> Iterator[FileResult]:
    """Yield a result for every task, in order of completion; tasks are drawn as needed.

    ``at_once``: all workers start at the beginning. Raises LapvqaError if they cannot be started.
    """
    pool = _Pool(chain.from_iterable(batches), context, workers, at_once=at_once)
    try:
        while pool.assign():
            yield from pool.wait()
    finally:
        pool.close()


class _Worker:
    """The pool's side of one worker process."""

    def __init__(self, context: Context) -> None:
        self.seconds = context.limits.seconds
        self.process = _start()
        streams = self.process.stdin, self.process.stdout, self.process.stderr
        self.tasks, self.results, self.errors = (stream for stream in streams if stream)
        for stream in (self.results, self.errors):
            os.set_blocking(stream.fileno(), False)
        with contextlib.suppress(OSError):  # room for what is queued: a worker need not wait
            fcntl.fcntl(self.results, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self.inbox = Inbox()
        self.queue: deque[Task] = deque()
        self.is_ready = False
        self.is_trial = False
        """It holds one file that may have ended another worker, and gets no second one."""
        self.last_words = b""
        self.started = time.monotonic()
        self.deadline = self.started + _START_SECONDS
        self.send((os.getpid(), context))

    @property
    def in_hand(self) -> bool:
        """Whether the pool has to wait for it."""
        return bool(self.queue) or not self.is_ready

    def give(self, task: Task) -> None:
        """Queue a task."""
        if self.is_ready and not self.queue:
            self.renew()
        self.queue.append(task)
        self.send(task)

    def send(self, message: object) -> None:
        """Write a message; if the worker has died, reading from it will show that."""
        with contextlib.suppress(BrokenPipeError):
            send(self.tasks, message)

    def renew(self) -> None:
        """Start the clock for the file in hand."""
        self.deadline = time.monotonic() + self.seconds

    def end(self) -> int:
        """Kill it and return its exit status; ``last_words`` keeps the end of its output."""
        self.process.kill()
        status = self.process.wait()
        with contextlib.suppress(BlockingIOError):
            self.hear(os.read(self.errors.fileno(), _PIPE_BYTES))
        for stream in (self.tasks, self.results, self.errors):
            stream.close()
        return status

    def hear(self, words: bytes) -> None:
        """Keep the end of its output, which is searched for known words and never shown."""
        self.last_words = (self.last_words + words)[-_LAST_WORDS:]


class _Pool:
    """Tasks, workers, and which worker holds which task."""

    def __init__(
        self, tasks: Iterator[Task], context: Context, size: int, *, at_once: bool
    ) -> None:
        self._tasks = tasks
        self._context = context
        self._size = size
        self._returned: deque[Task] = deque()
        self._suspects: deque[Task] = deque()
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        self._failed_starts = 0
        self._others_start = 0.0 if at_once else math.inf
        """From when on the workers beside the first start, if there is work for them."""

    def assign(self) -> bool:
        """Give every worker something to do; say whether there is anything to wait for."""
        size = self._size if time.monotonic() >= self._others_start else 1
        while len(self._workers) < size:
            if self._suspects:
                worker = self._add_worker()
                worker.is_trial = True
                worker.give(self._suspects.popleft())
            elif task := self._take():
                self._add_worker().give(task)
            else:
                break
        for queued in range(_QUEUED):
            for worker in self._workers:
                free = len(worker.queue) == queued and not worker.is_trial
                if free and (task := self._take()):
                    worker.give(task)
        return any(worker.queue for worker in self._workers)

    def wait(self) -> Iterator[FileResult]:
        """Yield the results that arrive next, or that a death or a timeout decides."""
        moments = [worker.deadline for worker in self._workers if worker.in_hand]
        if (now := time.monotonic()) < self._others_start:
            moments.append(self._others_start)
        events = self._selector.select(max(0.0, min(moments) - now))
        # The consumer of the results may be slow: a worker that ends meanwhile is not late.
        now = time.monotonic()
        silent = set(self._workers) - {key.data for key, _ in events}
        for key, _ in events:
            worker: _Worker = key.data
            if worker not in self._workers:  # ended earlier in this round
                continue
            piece = os.read(key.fd, _PIPE_BYTES)
            if key.fileobj is worker.errors:
                worker.hear(piece)
                if not piece:
                    self._selector.unregister(key.fileobj)
            elif piece:
                yield from self._answers(worker, piece)
            else:
                yield from self._death(worker)
        for worker in silent:
            if worker.in_hand and worker.deadline <= now:
                yield from self._lateness(worker)

    def close(self) -> None:
        """End all workers, whatever they are doing."""
        for worker in [*self._workers]:
            self._remove(worker)
        self._selector.close()

    def _take(self) -> Task | None:
        return self._returned.popleft() if self._returned else next(self._tasks, None)

    def _add_worker(self) -> _Worker:
        worker = _Worker(self._context)
        self._workers.append(worker)
        for stream in (worker.results, worker.errors):
            self._selector.register(stream, selectors.EVENT_READ, worker)
        return worker

    def _remove(self, worker: _Worker) -> int:
        """End a worker, take back the tasks that it has not begun, and return its exit status."""
        self._workers.remove(worker)
        for stream in (worker.results, worker.errors):
            if stream in self._selector.get_map():
                self._selector.unregister(stream)
        self._returned.extend(worker.queue)
        worker.queue.clear()
        return worker.end()

    def _answers(self, worker: _Worker, piece: bytes) -> Iterator[FileResult]:
        worker.renew()
        for message in worker.inbox.add(piece):
            if not worker.is_ready:
                worker.is_ready = True
                self._failed_starts = 0
                now = time.monotonic()
                self._others_start = min(self._others_start, 2 * now - worker.started)
                continue
            result, is_worn = message
            task = worker.queue.popleft()
            if result.reason == Reason.OUT_OF_MEMORY and not worker.is_trial:
                self._suspects.append(task)
                self._remove(worker)
                return
            worker.is_trial = False
            if is_worn:
                self._remove(worker)
            yield result
            if is_worn:
                return

    def _death(self, worker: _Worker) -> Iterator[FileResult]:
        if not worker.is_ready:
            self._failed_start(worker)
            return
        task = worker.queue.popleft() if worker.queue else None
        was_trial = worker.is_trial
        status = self._remove(worker)
        if task is not None and was_trial:
            yield self._dead(task, status, worker.last_words)
        elif task is not None:
            self._suspects.append(task)

    def _lateness(self, worker: _Worker) -> Iterator[FileResult]:
        if not worker.is_ready:
            self._failed_start(worker)
            return
        task = worker.queue.popleft()
        self._remove(worker)
        seconds = self._context.limits.seconds
        yield self._rejected(task, Reason.TIMED_OUT, f"expected to take {seconds:g} s at most")

    def _failed_start(self, worker: _Worker) -> None:
        self._failed_starts += 1
        if worker.is_trial:
            self._suspects.appendleft(worker.queue.popleft())
        status = self._remove(worker)
        if self._failed_starts == _START_TRIALS:
            raise LapvqaError(
                f"{_START_TRIALS} worker processes ended with status {status} before they read "
                f"a file",
                hint="run `python -m lapvqa.ingest.worker </dev/null`: it should end in silence",
            )

    def _dead(self, task: Task, status: int, last_words: bytes) -> FileResult:
        if any(words in last_words for words in _OUT_OF_MEMORY):
            detail = f"expected to fit into {self._context.limits.memory_mb} MB"
            return self._rejected(task, Reason.OUT_OF_MEMORY, detail, "bad_alloc")
        names = (known.name for known in signal.Signals if known == -status)
        name = next(names, f"status {status}")
        detail = f"the process that decoded it died twice, the second time of {name}"
        return self._rejected(task, Reason.DECODER_CRASHED, detail, name)

    def _rejected(
        self, task: Task, reason: Reason, detail: str, exception: str | None = None
    ) -> FileResult:
        result = unread(task, self._context.keyring, self._context.split_seed)
        return rejected(result, reason, detail, exception)


def _start() -> subprocess.Popen[bytes]:
    path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)  # noqa: PTH109 - text
    environment = {**os.environ, **dict.fromkeys(_ONE_THREAD, "1"), "PYTHONPATH": path}
    # The child inherits the mask: Ctrl-C reaches this process alone.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "lapvqa.ingest.worker"],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
