"""What ten new studies cost beside 1,000, 10,000 or 100,000 known files; memory; two workers.

Real files (64 x 64, 8 bits, one image a study, a report each) and the real stages inventory and
ingest, each in a process of its own. "ten new" is the time of a run that finds ten new studies,
"none new" of one that finds nothing; their difference is what the ten studies cost.

    python benchmarks/bench_scale.py [ENTRIES ...]        default: 1000 10000
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian
from ruamel.yaml import YAML

from lapvqa.identity import Ids, Keyring
from lapvqa.ingest.one_file import Context, Task
from lapvqa.ingest.pool import process_all

REPOSITORY = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "scale-cpu.json"
NEW, SIDE, REPEATS = 10, 64, 3
FILES = 300
SMALL = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE), dtype=np.uint8).tobytes()
_UID = b"1.2.3.1000000000"


def template(rows: int, columns: int, pixels: bytes) -> bytes:
    """Return a DICOM file whose UIDs have ten digits to be replaced."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = dataset.StudyInstanceUID = _UID.decode()
    dataset.PatientID, dataset.Modality, dataset.ViewPosition = "1", "DX", "PA"
    dataset.StudyDate = "21500101"
    dataset.Rows, dataset.Columns = rows, columns
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    allocated = 8 * len(pixels) // (rows * columns)
    dataset.BitsAllocated, dataset.BitsStored = allocated, 8 if allocated == 8 else 12
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, 0
    dataset.PixelData = pixels
    dataset["PixelData"].VR = "OB" if allocated == 8 else "OW"
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def add_studies(archive: Path, numbers: range, data: bytes) -> None:
    """Write one file and one report per study, in MIMIC-CXR's layout, no two pictures alike."""
    for number in numbers:
        subject, study = 10_000_000 + number // 3, 50_000_000 + number
        folder = archive / f"files/p{str(subject)[:2]}/p{subject}/s{study}"
        folder.mkdir(parents=True)
        own = data.replace(_UID, f"1.2.3.{number + 10**9:010d}".encode())
        own = own[:-8] + number.to_bytes(8, "little")
        (folder / f"{number:08x}.dcm").write_bytes(own)
        folder.with_suffix(".txt").write_text(f"FINAL REPORT\n FINDINGS: Number {number}.\n")


def make_project(root: Path, archive: Path, workers: int) -> None:
    """Write a project with the repository's parameters over ``archive``."""
    root.mkdir(parents=True)
    shutil.copy(REPOSITORY / "params.yaml", root)
    with (root / "local.yaml").open("w") as handle:
        YAML().dump({"paths": {"source": str(archive)}, "workers": workers}, handle)


def run(root: Path) -> tuple[float, float]:
    """Run inventory and ingest; return the seconds and the stage's own peak memory in MB."""
    seconds, peak = 0.0, 0.0
    for stage in ("inventory", "ingest"):
        started = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, "-m", "lapvqa.stage", stage], cwd=root, stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(child.pid, 0)
        seconds += time.perf_counter() - started
        peak = max(peak, usage.ru_maxrss / 1024)
        if status:
            raise SystemExit(f"{stage} failed")
    return seconds, peak


def measure(entries: int, scratch: Path, data: bytes) -> dict[str, float]:
    """Measure one size of archive."""
    archive, root = scratch / "archive", scratch / "project"
    add_studies(archive, range(entries), data)
    make_project(root, archive, workers=2)
    first, _ = run(root)
    none_new, ten_new, peaks, next_number = [], [], [], entries
    for _ in range(REPEATS):
        seconds, peak = run(root)
        none_new.append(seconds)
        add_studies(archive, range(next_number, next_number + NEW), data)
        next_number += NEW
        seconds, peak = run(root)
        ten_new.append(seconds)
        peaks.append(peak)
    shutil.rmtree(scratch)
    return {
        "entries": entries,
        "first_run_files_per_s": round(entries / first, 1),
        "none_new_s": round(min(none_new), 2),
        "ten_new_s": round(min(ten_new), 2),
        "per_new_study_ms": round(1e3 * (min(ten_new) - min(none_new)) / NEW, 1),
        "peak_mb_of_the_stage": round(max(peaks), 0),
    }


def speed(folder: Path, workers: int) -> float:
    """Return files per second of the worker pool, from its first result to its last."""
    context = Context(folder, Keyring(b"0123456789abcdef"), 0)
    tasks = [
        Task(path.name, path.stat().st_size, path.stat().st_mtime_ns, Ids(), False)
        for path in sorted(folder.iterdir())
    ]
    started, done = 0.0, 0
    for result in process_all([tasks], context, workers=workers):
        if result.reason is not None:
            raise SystemExit(f"rejected: {result.reason}")
        started = started or time.perf_counter()
        done += 1
    return (done - 1) / (time.perf_counter() - started)


def two_workers(scratch: Path) -> dict[str, object]:
    """Measure two workers beside one on files of 15.5 MB in the page cache, alternating."""
    noise = np.random.default_rng(0).integers(0, 4096, (3056, 2544)).astype("<u2").tobytes()
    first = scratch / "0000.dcm"
    first.write_bytes(template(3056, 2544, noise))
    for number in range(1, FILES):
        (scratch / f"{number:04d}.dcm").hardlink_to(first)
    pairs = [(speed(scratch, 1), speed(scratch, 2)) for _ in range(REPEATS)]
    ratios = sorted(two / one for one, two in pairs)
    print(f"two workers: {ratios[len(ratios) // 2]:.2f} x one [{ratios[0]:.2f}, {ratios[-1]:.2f}]")
    return {
        "file": "3056 x 2544, 12 in 16 bits, sha256 included, page cache warm",
        "files_per_s_one_and_two_workers": [[round(rate, 1) for rate in pair] for pair in pairs],
        "ratio_median_min_max": [
            round(ratio, 2) for ratio in (ratios[len(ratios) // 2], ratios[0], ratios[-1])
        ],
    }


def main(sizes: list[int]) -> None:
    """Measure every size, print, keep."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("LAPVQA_BENCH_DIR")) as folder:
        scaling = two_workers(Path(folder))
    data, rows = template(SIDE, SIDE, SMALL), []
    for entries in sizes:
        with tempfile.TemporaryDirectory(dir=os.environ.get("LAPVQA_BENCH_DIR")) as folder:
            rows.append(measure(entries, Path(folder) / "scale", data))
        print(json.dumps(rows[-1]), flush=True)
    if len(rows) > 1:
        first, last = rows[0], rows[-1]
        known = last["entries"] - first["entries"]
        cost = 1e6 * (last["none_new_s"] - first["none_new_s"]) / known
        print(f"each known file costs a run {cost:.0f} microseconds")
    result = {
        "what": __doc__.splitlines()[0] if __doc__ else "",
        "date": time.strftime("%Y-%m-%d"),
        "load_average": os.getloadavg()[0],
        "cores": os.cpu_count(),
        "versions": {name: version(name) for name in ("numpy", "pyarrow", "pydicom")},
        "max_rss_of_workers_mb": round(
            resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        ),
        "sizes": rows,
        "two_workers": scaling,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or [1000, 10_000])
