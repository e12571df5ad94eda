"""The pool under everything that a file, a decoder or a user may do to it."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import itertools
import multiprocessing
import os
import resource
import signal
import struct
import subprocess
import sys
import textwrap
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
from made_dicom import bytes_of, dataset_of, dicom_bytes, ramp, small_image
from others_at_work import is_alive, is_called
from pydicom import Dataset
from pydicom import uid as uids
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info

from lapvqa import inventory
from lapvqa.dicom.reasons import Reason
from lapvqa.errors import LapvqaError
from lapvqa.identity import Ids, Keyring
from lapvqa.ingest.archives.recognise import is_picture
from lapvqa.ingest.one_file import Context, FileResult, Task, process_file
from lapvqa.ingest.pool import process_all
from lapvqa.params import LimitParams

IDS = Ids("image", "study", "patient")
CLAIM = 46_341


def image(seed: int) -> bytes:
    return dicom_bytes(small_image(seed), bits=8, SOPInstanceUID=f"1.2.3.{seed + 1}")


def write(folder: Path, files: dict[str, bytes]) -> list[Task]:
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [
        Task(path, size, mtime, Ids(), is_picture(path))
        for path, size, mtime in inventory.scan(folder)
    ]


def context_of(folder: Path, *, seconds: float = 60.0, memory_mb: int = 2048) -> Context:
    limits = LimitParams(seconds=seconds, memory_mb=memory_mb)
    return Context(folder, Keyring(b"0123456789abcdef"), 0, limits)


def comparable(result: FileResult) -> tuple[Any, ...]:
    pixels = None if result.pixels is None else result.pixels.tobytes()
    fields = (f for f in FileResult.__dataclass_fields__ if f != "pixels")
    return (*(getattr(result, field) for field in fields), pixels)


def outcomes(tasks: list[Task], context: Context, *, workers: int = 2) -> dict[str, FileResult]:
    results = list(process_all([tasks], context, workers=workers, at_once=True))
    found = {result.path: result for result in results}
    assert len(results) == len(found) == len(tasks)
    return found


def reasons(results: dict[str, FileResult]) -> dict[str, str]:
    return {path: result.reason for path, result in results.items() if result.reason}


def workers_alive() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if is_called(child, "lapvqa.ingest.worker")]


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    resource_tracker.ensure_running()  # multiprocessing keeps a pipe to it for good
    gc.collect()  # what other tests left open closes whenever it likes
    before = _held()
    yield
    assert not workers_alive()
    assert _held() <= before


def _held() -> set[str]:
    """Return the files, pipes and sockets that this process has open."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.add(str(descriptor.readlink()))
    return found


class Deadly(Ids):
    """Ids whose arrival makes a worker do something."""

    def __init__(self, act: Callable[[], object]) -> None:
        object.__setattr__(self, "act", act)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.act, ()


def _abort_of_no_memory() -> None:
    ctypes.CDLL("libstdc++.so.6")._Znwm(ctypes.c_size_t(1 << 60))  # operator new


def _segfault() -> None:
    ctypes.string_at(0)


def _leave() -> None:
    os._exit(7)


def test_results_are_those_of_one_process_whatever_the_number_of_workers(tmp_path: Path) -> None:
    files = {f"{n:02}.dcm": image(n) for n in range(12)}
    files |= {"text.dcm": b"no image", "cut.dcm": image(50)[:-100]}
    tasks = write(tmp_path / "a", files)
    context = context_of(tmp_path / "a")
    alone = {task.path: comparable(process_file(task, context)) for task in tasks}
    for workers in (1, 2, 3):
        found = outcomes(tasks, context, workers=workers)
        assert {path: comparable(result) for path, result in found.items()} == alone
    assert reasons(found) == {"text.dcm": "not_dicom", "cut.dcm": "truncated"}


def test_a_worker_killed_from_outside_costs_nothing(tmp_path: Path) -> None:
    tasks = write(tmp_path / "a", {f"{n:02}.dcm": image(n) for n in range(40)})
    context = context_of(tmp_path / "a")
    alone = {task.path: comparable(process_file(task, context)) for task in tasks}
    found = {}
    for number, result in enumerate(process_all([tasks], context, workers=2, at_once=True)):
        found[result.path] = comparable(result)
        if number in (3, 11, 20):
            workers_alive()[0].kill()
    assert found == alone


@pytest.mark.parametrize(
    ("act", "reason", "exception"),
    [
        (_segfault, "decoder_crashed", "SIGSEGV"),
        (os.abort, "decoder_crashed", "SIGABRT"),
        (_leave, "decoder_crashed", "status 7"),
        (_abort_of_no_memory, "out_of_memory", "bad_alloc"),
    ],
)
def test_a_file_that_ends_its_process_costs_itself(
    tmp_path: Path, act: Callable[[], object], reason: str, exception: str
) -> None:
    tasks = write(tmp_path / "a", {f"{n:02}.dcm": image(n) for n in range(12)})
    tasks[3] = replace(tasks[3], ids=Deadly(act))
    found = {}
    for result in process_all([tasks], context_of(tmp_path / "a"), workers=2, at_once=True):
        found[result.path] = result
    assert reasons(found) == {"03.dcm": reason}
    assert found["03.dcm"].exception == exception
    assert len(found) == 12


def test_pictures_and_dicom_files_go_the_same_way(tmp_path: Path) -> None:
    encoded, png = cv2.imencode(".png", small_image(5))
    assert encoded
    files = {"a.PNG": png.tobytes(), "b.png": png.tobytes()[:300], "c.dcm": image(5)}
    tasks = [replace(task, ids=IDS) for task in write(tmp_path / "a", files)]
    found = outcomes(tasks, context_of(tmp_path / "a"))
    assert reasons(found) == {"b.png": "truncated"}
    assert found["a.PNG"].file_sha256 == hashlib.sha256(png.tobytes()).hexdigest()
    assert found["a.PNG"].study_key == found["c.dcm"].study_key


def test_many_crashes_leave_nothing_behind(tmp_path: Path) -> None:
    tasks = write(tmp_path / "a", {f"{n:02}.dcm": image(n) for n in range(12)})
    for n in (0, 1, 5, 6, 11):
        tasks[n] = replace(tasks[n], ids=Deadly(_leave))
    found = outcomes(tasks, context_of(tmp_path / "a"))
    found = {path: result.reason for path, result in found.items()}
    assert len(found) == 12
    assert sorted(path for path, reason in found.items() if reason) == [
        f"{n:02}.dcm" for n in (0, 1, 5, 6, 11)
    ]  # and the fixture counts descriptors and processes


def test_a_fault_of_ours_costs_the_file_and_says_where(tmp_path: Path) -> None:
    tasks = write(tmp_path / "a", {"0.dcm": image(0), "1.dcm": image(1)})
    tasks.append(Task("canary\0name", 10, 0, IDS, False))  # ValueError: no path that a system knows
    found = outcomes(tasks, context_of(tmp_path / "a"))
    assert reasons(found) == {"canary\0name": "decoder_crashed"}
    fault = found["canary\0name"]
    assert fault.exception == "ValueError"
    assert "canary" not in str(fault.detail)
    assert ".py, line " in str(fault.detail)


def endless_items(count: int) -> bytes:
    """A file whose sequence of ``count`` empty items, of no use to us, has to be read through."""
    dataset = dataset_of(small_image(1), bits=8)
    dataset.add_new(0x00081140, "SQ", [])
    data = bytes_of(dataset)
    head = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0)
    assert data.count(head) == 1
    body = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * count
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return data.replace(head, head[:-4] + struct.pack("<I", 0xFFFFFFFF) + body + end)


def test_a_file_that_takes_too_long_costs_itself(tmp_path: Path) -> None:
    files = {f"{n:02}.dcm": image(n) for n in range(8)}
    tasks = write(tmp_path / "a", files | {"03slow.dcm": endless_items(500_000)})
    found = outcomes(tasks, context_of(tmp_path / "a", seconds=0.5))
    assert reasons(found) == {"03slow.dcm": "timed_out"}
    assert Reason.TIMED_OUT.remedy


def test_a_file_that_takes_long_but_not_too_long_is_read(tmp_path: Path) -> None:
    tasks = write(tmp_path / "a", {"slow.dcm": endless_items(20_000)})
    assert reasons(outcomes(tasks, context_of(tmp_path / "a", seconds=60.0))) == {}


def test_a_stopped_worker_is_replaced(tmp_path: Path) -> None:
    tasks = write(tmp_path / "a", {f"{n:02}.dcm": image(n) for n in range(12)})
    found = {}
    for result in process_all([tasks], context_of(tmp_path / "a", seconds=1.0), workers=1):
        if not found:
            workers_alive()[0].send_signal(signal.SIGSTOP)
        found[result.path] = result.reason
    assert len(found) == 12
    assert sorted(found.values(), key=str) == [None] * 11 + ["timed_out"]


def test_who_asks_late_makes_nobody_late(tmp_path: Path) -> None:
    tasks = write(tmp_path / "a", {f"{n:02}.dcm": image(n) for n in range(12)})
    found = {}
    for result in process_all(
        [tasks], context_of(tmp_path / "a", seconds=0.5), workers=2, at_once=True
    ):
        found[result.path] = result.reason
        if len(found) in (1, 6):
            time.sleep(1.2)
    assert found == dict.fromkeys((task.path for task in tasks), None)


def _claiming(syntax: uids.UID, *, rows: int = CLAIM, cols: int = CLAIM) -> bytes:
    dataset = dataset_of(ramp(8, rows=80, cols=80).astype(np.uint8), bits=8)
    if syntax.is_compressed:
        dataset.compress(syntax)
    dataset.Rows, dataset.Columns = rows, cols
    return bytes_of(dataset)


def _codestream_claiming(syntax: uids.UID, mark: bytes, offset: int, form: str) -> bytes:
    """A header of 80 x 80 around a compressed frame that claims 46,341 x 46,341."""
    dataset = dataset_of(ramp(8, rows=80, cols=80).astype(np.uint8), bits=8)
    dataset.compress(syntax)
    place = dataset.PixelData.index(mark) + offset
    claim = struct.pack(form, CLAIM, CLAIM)
    pixels = dataset.PixelData
    dataset.PixelData = pixels[:place] + claim + pixels[place + len(claim) :]
    return bytes_of(dataset)


def _zeros_deflated(count: int) -> bytes:
    """Raw deflate of ``count`` times 10 MB of zeros: blocks that stand for themselves."""
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    block = deflater.compress(bytes(10_000_000)) + deflater.flush(zlib.Z_FULL_FLUSH)
    return block * count


def deflated(head: Dataset, tail: bytes) -> bytes:
    """A deflated file of ``head`` and the bytes that ``tail`` inflates to."""
    stream = BytesIO()
    stream.write(bytes(128) + b"DICM")
    head.file_meta.TransferSyntaxUID = uids.DeflatedExplicitVRLittleEndian
    head.file_meta.MediaStorageSOPClassUID = head.SOPClassUID
    head.file_meta.MediaStorageSOPInstanceUID = head.SOPInstanceUID
    write_file_meta_info(stream, head.file_meta)
    plain = DicomBytesIO()
    plain.is_implicit_VR, plain.is_little_endian = False, True
    write_dataset(plain, head)
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    stream.write(deflater.compress(plain.getvalue()) + deflater.flush(zlib.Z_FULL_FLUSH))
    return stream.getvalue() + tail


def _deflated_bomb(element: bytes) -> bytes:
    dataset = dataset_of(ramp(8, rows=80, cols=80).astype(np.uint8), bits=8)
    del dataset.PixelData
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    head = deflater.compress(element) + deflater.flush(zlib.Z_FULL_FLUSH)
    return deflated(dataset, head + _zeros_deflated(1000))


def _nested(depth: int) -> bytes:
    dataset = dataset_of(small_image(1), bits=8)
    dataset.add_new(0x00081140, "SQ", [])
    data = bytes_of(dataset)
    empty = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0)
    begin = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return data.replace(empty, (begin + item) * depth)


def _private_without_end() -> bytes:
    data = image(1)
    element = struct.pack("<HH2sHI", 0x0009, 0x1001, b"UN", 0, 0xFFFFFFFF)
    place = data.index(struct.pack("<HH", 0x0010, 0x0020))
    return data[:place] + element + bytes(2000) + data[place:]


def _lut_without_end() -> bytes:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [0, 0, 16])
    item.add_new("LUTData", "US", [1, 2, 3])
    return dicom_bytes(ramp(), VOILUTSequence=[item])


def _rle_of_many_segments() -> bytes:
    dataset = dataset_of(ramp(8, rows=80, cols=80).astype(np.uint8), bits=8)
    dataset.compress(uids.RLELossless)
    pixels = dataset.PixelData
    dataset.PixelData = pixels[:16] + struct.pack("<I", 0xFFFFFFFF) + pixels[20:]
    return bytes_of(dataset)


PIXELS_OF_4_GB = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFE)
PRIVATE_OF_4_GB = struct.pack("<HH2sHI", 0x7FDF, 0x1001, b"UN", 0, 0xFFFFFFF0)
BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "uncompressed": ("too_large", lambda: _claiming(uids.ExplicitVRLittleEndian)),
    "RLE": ("too_large", lambda: _claiming(uids.RLELossless)),
    "JPEG 2000": ("too_large", lambda: _claiming(uids.JPEG2000Lossless)),
    "a little less": (
        "truncated",
        lambda: _claiming(uids.ExplicitVRLittleEndian, rows=2400, cols=40_000),
    ),
    "JPEG 2000 frame": (
        "wrong_length",
        lambda: _codestream_claiming(uids.JPEG2000Lossless, b"\xff\x4f\xff\x51", 8, ">II"),
    ),
    "JPEG-LS frame": (
        "wrong_length",
        lambda: _codestream_claiming(uids.JPEGLSLossless, b"\xff\xf7", 5, ">HH"),
    ),
    "RLE of 4 billion segments": ("wrong_length", _rle_of_many_segments),
    "deflated pixels": ("too_large", lambda: _deflated_bomb(PIXELS_OF_4_GB)),
    "deflated header": ("too_large", lambda: _deflated_bomb(PRIVATE_OF_4_GB)),
    "nested 10,000 deep": ("bad_header", lambda: _nested(10_000)),
    "private element without end": ("bad_header", _private_without_end),
    "LUT without end": ("bad_header", _lut_without_end),
}


def test_bombs_cost_themselves_and_no_memory(tmp_path: Path) -> None:
    bombs = {f"{name}.dcm": make() for name, (_, make) in BOMBS.items()}
    assert max(len(data) for data in bombs.values()) < 12e6
    assert sum(len(data) < 12_000 for data in bombs.values()) >= 7
    tasks = write(tmp_path / "a", bombs | {f"{n:02}.dcm": image(n) for n in range(8)})
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    found = outcomes(tasks, context_of(tmp_path / "a", seconds=20.0, memory_mb=512))
    assert reasons(found) == {f"{name}.dcm": reason for name, (reason, _) in BOMBS.items()}
    assert "pixels announced" in str(found["deflated pixels.dcm"].detail)
    assert "inflated" in str(found["deflated header.dcm"].detail)
    assert found["nested 10,000 deep.dcm"].exception == "RecursionError"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 50_000
    # In kB; of all children so far, also of other tests, and each counts as large as this process
    # at the moment of its fork.
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert most <= max(children, own, 1_000_000)


def test_a_deflated_file_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    pixels = small_image(3)
    head, end = dataset_of(pixels, bits=8), zlib.compressobj(9, wbits=-zlib.MAX_WBITS).flush()
    files = {
        "whole.dcm": deflated(head, end),
        "no end.dcm": deflated(head, b""),
        "10 GB behind.dcm": deflated(head, _zeros_deflated(1000)),
        "plain.dcm": dicom_bytes(pixels, bits=8),
    }
    tasks = write(tmp_path / "a", files)
    found = outcomes(tasks, context_of(tmp_path / "a", seconds=20.0, memory_mb=256))
    assert reasons(found) == {"no end.dcm": "truncated", "10 GB behind.dcm": "too_large"}
    assert found["whole.dcm"].pixels_sha256 == found["plain.dcm"].pixels_sha256


def test_a_file_larger_than_the_memory_costs_itself(tmp_path: Path) -> None:
    large = dicom_bytes(np.tile(ramp(16), (18, 16)))
    files = {f"{n:02}.dcm": image(n) for n in range(8)} | {"03large.dcm": large}
    tasks = write(tmp_path / "a", files)
    found = outcomes(tasks, context_of(tmp_path / "a", memory_mb=64))
    assert reasons(found) == {"03large.dcm": "out_of_memory"}
    assert found["03large.dcm"].exception == "MemoryError"
    assert reasons(outcomes(tasks, context_of(tmp_path / "a", memory_mb=1024))) == {}


def test_tasks_are_drawn_and_results_held_as_they_are_asked_for(tmp_path: Path) -> None:
    (task,) = write(tmp_path / "a", {"a.dcm": image(1)})
    drawn = itertools.count()
    endless = ([task] for _ in iter(lambda: next(drawn), None))
    results = process_all(endless, context_of(tmp_path / "a"), workers=2)
    for _ in range(5):
        assert next(results).reason is None
    time.sleep(0.3)
    results.close()
    assert next(drawn) <= 5 + 2 * 2 + 2 * 2


def test_few_files_start_one_worker(tmp_path: Path) -> None:
    tasks = write(tmp_path / "a", {"0.dcm": image(0), "1.dcm": image(1)})
    alive = [
        len(workers_alive()) for _ in process_all([tasks], context_of(tmp_path / "a"), workers=4)
    ]
    assert alive == [1, 1]


def test_the_pool_runs_inside_a_daemonic_process(tmp_path: Path) -> None:
    tasks = write(tmp_path / "a", {f"{n:02}.dcm": image(n) for n in range(4)})
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.SimpleQueue()
    daemon = spawn.Process(target=_in_daemon, args=(tasks, tmp_path / "a", answers), daemon=True)
    daemon.start()
    assert answers.get() == 4
    daemon.join()
    answers.close()
    daemon.close()


def _in_daemon(tasks: list[Task], folder: Path, answers: Any) -> None:
    assert multiprocessing.current_process().daemon
    answers.put(len(list(process_all([tasks], context_of(folder), workers=2))))


def test_workers_that_cannot_start_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = write(tmp_path / "a", {"a.dcm": image(1)})
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(LapvqaError, match="3 worker processes ended with status 1"):
        list(process_all([tasks], context_of(tmp_path / "a"), workers=2))


SCRIPT = """
    import sys, time
    from pathlib import Path
    sys.path[:0] = [{tests!r} + room for room in ("", "/..", "/../dicom")]
    from test_workers import context_of, write, workers_alive
    from lapvqa.ingest.pool import process_all
    folder = Path(sys.argv[1])
    tasks = write(folder, {{}}) * 100_000
    said = False
    for number, result in enumerate(process_all([tasks], context_of(folder), workers=2)):
        if not said and number >= 5 and len(workers_alive()) == 2:
            said = True
            print(*(worker.pid for worker in workers_alive()), flush=True)
"""


@pytest.mark.parametrize("signal_sent", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_parent_and_without_a_word(
    tmp_path: Path, signal_sent: signal.Signals, request: pytest.FixtureRequest
) -> None:
    write(tmp_path / "a", {f"{n:02}.dcm": image(n) for n in range(4)})
    script = textwrap.dedent(SCRIPT).format(tests=str(Path(__file__).parent))
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "a")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    request.addfinalizer(process.kill)
    assert process.stdout
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert len(workers) == 2
    if signal_sent == signal.SIGINT:
        os.killpg(process.pid, signal_sent)  # as a terminal does: to all of them
    else:
        process.kill()
    _, errors = process.communicate(timeout=120)
    deadline = time.monotonic() + 60
    while any(map(is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(is_alive, workers))
    assert errors.count("Traceback") == (signal_sent == signal.SIGINT)
    assert "runpy" not in errors, "a worker's traceback begins where python -m begins"
