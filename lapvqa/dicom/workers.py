"""Many files in many processes; what kills a process costs one file.

Each worker reads, hashes and renders its files and returns rows without identifiers. It holds
one file at a time (its bytes, its cells and their grey values: below 0.5 GB at 100 million
pixels of 16 bits); the parent holds the results of a few batches per worker.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

from lapvqa import runtime
from lapvqa.dicom.header import Header
from lapvqa.dicom.identity import Keyring
from lapvqa.dicom.layouts import Ids
from lapvqa.dicom.read import parse, render
from lapvqa.dicom.reasons import Reason
from lapvqa.dicom.results import FileResult
from lapvqa.dicom.splits import split_point
from lapvqa.errors import DicomError

MAX_FILE_BYTES = 1 << 30
_BATCHES_AHEAD = 3


@dataclass(frozen=True)
class Task:
    """One file to read, as the inventory lists it."""

    path: str
    size: int
    mtime_ns: int
    ids: Ids


@dataclass(frozen=True)
class Context:
    """What every worker needs, sent once."""

    folder: Path
    keyring: Keyring
    split_seed: int


Batch = Sequence[Task]
Outcome = list[FileResult]

_context: Context | None = None


def process_all(
    batches: Iterable[Batch], context: Context, *, workers: int
) -> Iterator[FileResult]:
    """Yield a result for every task, in order of completion."""
    waiting = deque(batches)
    while waiting:
        suspects: list[Task] = []
        yield from _until_broken(waiting, suspects, context, workers=workers)
        # A dead worker takes the whole pool along: find out which file it was.
        yield from _one_by_one(suspects, context)


def _until_broken(
    waiting: deque[Batch], suspects: list[Task], context: Context, *, workers: int
) -> Iterator[FileResult]:
    """Work off ``waiting``; if the pool breaks, leave what it held in ``suspects`` and return."""
    running: dict[Future[Outcome], Batch] = {}
    pool = _pool(min(workers, len(waiting)), context)
    broken = False
    try:
        while running or (waiting and not broken):
            broken = broken or not _fill(pool, waiting, running, ahead=workers * _BATCHES_AHEAD)
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                batch = running.pop(future)
                if isinstance(future.exception(), BrokenProcessPool):
                    broken = True
                    suspects.extend(batch)
                else:
                    yield from future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _fill(
    pool: ProcessPoolExecutor,
    waiting: deque[Batch],
    running: dict[Future[Outcome], Batch],
    *,
    ahead: int,
) -> bool:
    """Submit until ``ahead`` batches run; say whether the pool took them."""
    try:
        while waiting and len(running) < ahead:
            running[_submit(pool, waiting[0])] = waiting[0]
            waiting.popleft()
    except BrokenProcessPool:
        return False
    return True


def _one_by_one(tasks: Sequence[Task], context: Context) -> Iterator[FileResult]:
    """Process each task with nothing beside it; one that kills its worker is a reject."""
    pool: ProcessPoolExecutor | None = None
    try:
        for task in tasks:
            pool = pool or _pool(1, context)
            try:
                yield _submit(pool, [task]).result()[0]
            except BrokenProcessPool:
                pool.shutdown()
                pool = None
                result = unread(task, context.keyring, context.split_seed)
                yield _rejected(result, Reason.DECODER_CRASHED, "the process that decoded it died")
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, batch: Batch) -> Future[Outcome]:
    # Submitting starts workers, and they inherit the mask: Ctrl-C reaches the parent alone, at
    # the latest when the mask is lifted, and no worker ends in a traceback.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(process_batch, batch)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _pool(workers: int, context: Context) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        max_workers=workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(context, os.getpid()),
    )


def _start_worker(context: Context, parent: int) -> None:
    global _context
    runtime.die_with_parent()
    if os.getppid() != parent:  # killed while this process was starting: nobody would ever call
        os._exit(1)
    _context = context


def process_batch(batch: Batch) -> Outcome:
    """Process the tasks of one batch, in a worker."""
    if _context is None:
        raise RuntimeError("process_batch outside a worker")
    return [process_file(task, _context) for task in batch]


def process_file(task: Task, context: Context) -> FileResult:
    """Read, hash and render one file; a reject is a result like any other."""
    result = unread(task, context.keyring, context.split_seed)
    try:
        data = _read(context.folder / task.path, task)
        result = replace(result, file_sha256=hashlib.sha256(data).hexdigest())
        parsed = parse(data)
        result = _described(result, parsed.header, task.ids, context)
        _require_ids(result)
        image = render(parsed)
    except DicomError as error:
        return _rejected(result, Reason(error.reason), error.message, error.exception)
    except MemoryError:
        return _rejected(result, Reason.OUT_OF_MEMORY, "expected to fit into memory", "MemoryError")
    return replace(
        result,
        voi=image.voi,
        native_rows=image.fit.native_rows,
        native_cols=image.fit.native_cols,
        scale=image.fit.scale,
        offset_x=image.fit.offset_x,
        offset_y=image.fit.offset_y,
        pixels_sha256=hashlib.sha256(image.pixels.data).hexdigest(),
        pixels=image.pixels,
    )


def _read(path: Path, task: Task) -> bytes:
    if task.size > MAX_FILE_BYTES:
        raise DicomError(Reason.TOO_LARGE, f"{task.size} bytes, at most {MAX_FILE_BYTES} are read")
    try:
        with path.open("rb", buffering=0) as handle:
            data = handle.read()
            status = os.fstat(handle.fileno())
    except OSError as error:
        raise DicomError(Reason.UNREADABLE, f"expected a readable file: {error.strerror}") from None
    if (len(data), status.st_mtime_ns) != (task.size, task.mtime_ns):
        raise DicomError(Reason.CHANGED, "the file is no longer as it was listed")
    return data


def unread(task: Task, keyring: Keyring, split_seed: int) -> FileResult:
    """Return what is known of a file by its path alone."""
    result = FileResult(path=task.path, size=task.size, mtime_ns=task.mtime_ns)
    return _named(result, task.ids, keyring, split_seed)


def _rejected(
    result: FileResult, reason: Reason, detail: str, exception: str | None = None
) -> FileResult:
    return replace(result, reason=reason.value, detail=detail, exception=exception)


def _described(result: FileResult, header: Header, ids: Ids, context: Context) -> FileResult:
    """Add what the header says; ids of the path go before those of the header."""
    ids = Ids(
        ids.image or header.instance_uid,
        ids.study or header.study_uid,
        ids.patient or header.patient_id,
    )
    return replace(
        _named(result, ids, context.keyring, context.split_seed),
        instance_key=context.keyring.image(header.instance_uid) if header.instance_uid else None,
        study_date=header.study_date,
        study_time=header.study_time,
        view=header.view,
        photometric=header.photometric,
        bits_stored=header.bits_stored,
        transfer_syntax=header.transfer_syntax,
    )


def _require_ids(result: FileResult) -> None:
    needed = {
        "SOPInstanceUID": result.image_key,
        "StudyInstanceUID": result.study_key,
        "PatientID": result.patient_key,
    }
    missing = [name for name, key in needed.items() if key is None]
    if missing:
        raise DicomError(Reason.MISSING_ID, f"expected {', '.join(missing)}, found nothing")


def _named(result: FileResult, ids: Ids, keyring: Keyring, split_seed: int) -> FileResult:
    return replace(
        result,
        image_key=keyring.image(ids.image) if ids.image else None,
        study_key=keyring.study(ids.study) if ids.study else None,
        patient_key=keyring.patient(ids.patient) if ids.patient else None,
        split_point=split_point(split_seed, ids.patient) if ids.patient else None,
    )
