"""Uncompressed 3056 x 2544 files of 16 bits to stored 384 x 384 images, beside the usual recipes.

Twelve different radiograph-like DICOM files lie on disk and in the page cache; one core; every
contender goes from the path to the written image, in turns of all twelve files (187 MB, so that no
cache of the processor holds the next file). The peers:

- usual: pydicom, min-max, Pillow bicubic to 384 x 384, PNG.
- cv2: pydicom, the window's clamp, cv2 INTER_AREA, the window's slope: our image, at most 1 grey
  level apart (checked). It writes into the same shard.
- cv2, window last: the same without the clamp. It is quicker and wrong where the window clips.
- dcmtk: dcm2pnm +Wm +Sxv 384, its process start included (left out if it is not installed).

Ours is measured from its public parts, with and without the sha256 of the file (an incremental
ingest needs it, no peer makes it), and as the worker's own ``process_file``, which also hashes
the pixels and the identifiers. What a shard costs is measured on a whole one and added per image.

Each contender lives in a process of its own, as it would in use, since much of the time of such
code is memory fresh from the kernel. All is measured twice: as the processes come, and with glibc
told to keep freed memory, which helps the peers most.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from lapvqa.dicom.parse import parse
from lapvqa.dicom.render import render
from lapvqa.identity import Ids, Keyring
from lapvqa.images.geometry import fit_of, framed
from lapvqa.images.shards import write_shard
from lapvqa.ingest.one_file import Context, Task, process_file

ROWS, COLUMNS, FILES, ALTERNATIONS, SHARD_IMAGES = 3056, 2544, 12, 9, 512
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
LOW, HIGH = 500, 3599
"""Black and white of the files' window: LINEAR, center 2050, width 3100 (PS3.3 C.11.2.1.2)."""
REQUIRED = {"usual": 10.0, "cv2": 5.0}
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "2000000000"}
RESULT = Path(__file__).parent / "results" / "ingest-cpu.json"
Pixels = NDArray[np.uint8]


def make_file(seed: int) -> bytes:
    """Return a 12-bit radiograph-like DICOM file: dark lungs, ribs, grain; clipped at both ends."""
    rng = np.random.default_rng(seed)
    x = np.linspace(-1, 1, COLUMNS, dtype=np.float32)[None]
    y = np.linspace(-1, 1, ROWS, dtype=np.float32)[:, None]
    shift = np.float32(rng.uniform(-0.1, 0.1))
    body = 3300 - 900 * (x * x + y * y)
    lungs = sum(np.exp(-(((x - side + shift) / 0.28) ** 2) - ((y + 0.1) / 0.55) ** 2)
                for side in (-0.45, 0.45))  # fmt: skip
    ribs = 160 * np.sin(22 * y + 5 * np.abs(x) + seed)
    grain = rng.standard_normal((ROWS, COLUMNS), dtype=np.float32) * 70
    pixels = np.clip(body - 2400 * lungs + ribs * (lungs > 0.1) + grain, 0, 4095)
    pixels[:, : 60 + 10 * seed] = 4095
    pixels[40:130, -300:-80] = 4000

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["bench", str(seed)])
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=["study", str(seed)])
    dataset.PatientID, dataset.PatientName = f"bench{seed}", "Bench^Mark"
    dataset.StudyDate, dataset.StudyTime, dataset.ViewPosition = "21500102", "101500", "PA"
    dataset.Modality, dataset.BodyPartExamined, dataset.Manufacturer = "DX", "CHEST", "none"
    dataset.PatientIdentityRemoved, dataset.PhotometricInterpretation = "YES", "MONOCHROME2"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = ROWS, COLUMNS, 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation, dataset.RescaleSlope, dataset.RescaleIntercept = 0, 1, 0
    dataset.WindowCenter, dataset.WindowWidth = (LOW + HIGH + 1) / 2, HIGH - LOW + 1
    dataset.PixelData = pixels.astype("<u2").tobytes()
    with tempfile.SpooledTemporaryFile() as buffer:
        dataset.save_as(buffer, enforce_file_format=True)
        buffer.seek(0)
        return buffer.read()


def read(path: Path) -> bytes:
    """Read a file as the worker does."""
    size = path.stat().st_size
    with path.open("rb", buffering=0) as handle:
        data = handle.read(size + 1)
        os.fstat(handle.fileno())
    return data


def ours(path: Path) -> Pixels:
    """Read, parse, render."""
    return render(parse(read(path))).pixels


def ours_sha256(path: Path) -> Pixels:
    """The same, and the file's sha256."""
    data = read(path)
    hashlib.sha256(data).hexdigest()
    return render(parse(data)).pixels


def ours_worker(path: Path) -> Pixels:
    """What a worker does for a file, hashes of pixels and identifiers included."""
    status = path.stat()
    task = Task(path.name, status.st_size, status.st_mtime_ns, Ids(), False)
    result = process_file(task, Context(path.parent, Keyring(b"k" * 32), split_seed=0))
    assert result.pixels is not None, result.detail
    return result.pixels


def peer_usual(path: Path) -> None:
    """Min-max, bicubic, PNG."""
    pixels = pydicom.dcmread(path).pixel_array.astype("f4")
    pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min()) * 255
    small = Image.fromarray(pixels.astype("u1")).resize((384, 384), Image.Resampling.BICUBIC)
    small.save(path.with_suffix(".png"))


def peer_cv2(path: Path, *, clamp: bool = True) -> Pixels:
    """The window and cv2's area average, in the order that costs least."""
    pixels = pydicom.dcmread(path).pixel_array
    if clamp:
        pixels = np.clip(pixels, LOW, HIGH)
    fit = fit_of(ROWS, COLUMNS)
    small = cv2.resize(pixels, None, fx=fit.scale, fy=fit.scale, interpolation=cv2.INTER_AREA)
    grey = np.clip((small.astype("f4") - LOW) / (HIGH - LOW), 0, 1) * 255
    return framed((grey + 0.5).astype(np.uint8), fit)


def peer_cv2_last(path: Path) -> Pixels:
    """The window on the average only."""
    return peer_cv2(path, clamp=False)


def peer_dcmtk(path: Path) -> None:
    """Another program."""
    command = ["dcm2pnm", "+Wm", "+Sxv", "384", path, path.with_suffix(".pgm")]
    subprocess.run(command, check=True, capture_output=True)


def milliseconds(function: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    started = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - started)


def median_ms(function: Callable[[], object], repeats: int = 2 * ALTERNATIONS) -> float:
    """Return the median wall time of a call."""
    return statistics.median(milliseconds(function) for _ in range(repeats))


def shard_ms_per_image(folder: Path) -> float:
    """Return what an image costs when a whole shard is stacked, written and synced."""
    images = [np.full((384, 384), index % 256, np.uint8) for index in range(SHARD_IMAGES)]
    keys = [f"{index:016x}" for index in range(SHARD_IMAGES)]
    path = folder / "shard.arrow"
    return median_ms(lambda: write_shard(path, keys, np.stack(images)), repeats=3) / SHARD_IMAGES


def breakdown(path: Path, write_ms: float) -> dict[str, float]:
    """Return the parts of our way on one file, in milliseconds."""
    data = read(path)
    parsed = parse(data)
    pixels = render(parsed).pixels
    parts = {
        "read": median_ms(lambda: read(path)),
        "header": median_ms(lambda: parse(data)),
        "pixels": median_ms(lambda: render(parsed)),
        "write": write_ms,
        "sha256 of the file": median_ms(lambda: hashlib.sha256(data).hexdigest()),
        "sha256 of the pixels": median_ms(lambda: hashlib.sha256(pixels.data).hexdigest()),
    }
    return {name: round(value, 3) for name, value in parts.items()}


CONTENDERS: dict[str, Callable[[Path], object]] = {
    "ours": ours,
    "ours, sha256": ours_sha256,
    "ours, process_file": ours_worker,
    "usual": peer_usual,
    "cv2": peer_cv2,
    "cv2, window last": peer_cv2_last,
    "dcmtk": peer_dcmtk,
}
WRITE_THEMSELVES = ("usual", "dcmtk")


def serve(pipe: Connection, name: str) -> None:
    """Be one contender: answer each list of paths with the milliseconds it took, per file."""
    cv2.setNumThreads(1)
    while paths := pipe.recv():
        pipe.send(milliseconds(lambda paths=paths: all_of(paths, CONTENDERS[name])) / len(paths))


def all_of(paths: list[Path], function: Callable[[Path], object]) -> None:
    """Do one file after the other; what was written away is not held."""
    for path in paths:
        function(path)


def measure(paths: list[Path], write_ms: float, **environment: str) -> dict[str, list[float]]:
    """Return milliseconds per file of each contender, one number per alternation."""
    names = [name for name in CONTENDERS if name != "dcmtk" or shutil.which("dcm2pnm")]
    os.environ.update(environment)
    spawn, pipes, processes = multiprocessing.get_context("spawn"), {}, []
    for name in names:
        pipes[name], theirs = spawn.Pipe()
        processes.append(spawn.Process(target=serve, args=(theirs, name), daemon=True))
        processes[-1].start()
    for variable in environment:
        del os.environ[variable]
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(ALTERNATIONS + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            pipes[name].send(paths)
            spent = pipes[name].recv() + (0 if name in WRITE_THEMSELVES else write_ms)
            if turn:  # the first is to get warm
                times[name].append(spent)
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(None)
        process.join()
    return times


def ratios(times: dict[str, list[float]]) -> dict[str, dict[str, list[float]]]:
    """Return median, least and largest of peer over ours, turn by turn."""
    found: dict[str, dict[str, list[float]]] = {}
    for own in (name for name in times if name.startswith("ours")):
        found[own] = {}
        for peer in (name for name in times if not name.startswith("ours")):
            each = [b / a for a, b in zip(times[own], times[peer], strict=True)]
            numbers = statistics.median(each), min(each), max(each)
            found[own][peer] = [round(number, 2) for number in numbers]
    return found


def summary(times: dict[str, list[float]]) -> dict[str, object]:
    """Return what the result file says of one measurement."""
    return {
        "median_ms_per_file": {
            name: round(statistics.median(values), 2) for name, values in times.items()
        },
        "peer_over_ours_median_min_max": ratios(times),
    }


def difference(paths: list[Path], other: Callable[[Path], Pixels]) -> int:
    """Return the largest difference in grey levels from our images."""
    return max(int(np.abs(ours(p).astype(int) - other(p).astype(int)).max()) for p in paths)


def clipped_share(path: Path) -> float:
    """Return which share of the pixels the window clips."""
    pixels = pydicom.dcmread(path).pixel_array
    return float(((pixels < LOW) | (pixels > HIGH)).mean())


def main() -> None:
    """Alternate, compare, print, keep; the exit status says whether the ratios are met."""
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    cv2.setNumThreads(1)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [folder / f"{seed:02d}.dcm" for seed in range(FILES)]
        for seed, path in enumerate(paths):
            path.write_bytes(make_file(seed))
        load = os.getloadavg()[0]
        same, last = difference(paths, peer_cv2), difference(paths, peer_cv2_last)
        assert same <= 1, f"{same} grey levels between us and the peer cv2"
        assert difference(paths, ours_worker) == 0
        write_ms = shard_ms_per_image(folder)
        times = measure(paths, write_ms)
        kept = measure(paths, write_ms, **KEEP_MEMORY)
        parts = breakdown(paths[0], write_ms)
        clipped = [round(clipped_share(path), 3) for path in (paths[0], paths[-1])]
    keep(times, kept, parts, {"cv2": same, "cv2, window last": last}, clipped, load)
    missed = [
        f"{peer}: {found:.1f}x, {REQUIRED[peer]}x required"
        for peer, (found, _, _) in ratios(times)["ours"].items()
        if peer in REQUIRED and found < REQUIRED[peer]
    ]
    if missed:
        sys.exit("; ".join(missed))


def keep(
    times: dict[str, list[float]],
    kept: dict[str, list[float]],
    parts: dict[str, float],
    apart: dict[str, int],
    clipped: list[float],
    load: float,
) -> None:
    """Print and write the result."""
    result = {
        "files": f"{FILES} of {ROWS} x {COLUMNS}, 12 in 16 bits, little endian, in the page cache",
        "clipped_by_the_window": clipped,
        "alternations": ALTERNATIONS,
        "cores": 1,
        "load_average_before": round(load, 2),
        "load_average_after": round(os.getloadavg()[0], 2),
        "date": time.strftime("%Y-%m-%d"),
        "cpu": next(
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "python": platform.python_version(),
        "versions": {
            package: version(package)
            for package in ("numba", "numpy", "opencv-python-headless", "pillow", "pydicom")
        },
        "largest_difference_in_grey_levels": apart,
        "parts_ms": parts,
        "as_they_come": summary(times),
        "with_freed_memory_kept": {"environment": KEEP_MEMORY} | summary(kept),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
