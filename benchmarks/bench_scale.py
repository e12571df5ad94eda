"""What inventory and ingest cost beside 1,000 to 377,110 known files: seconds, memory.

An archive in MIMIC-CXR's layout: two images of three studies of four, metadata, split, labels and
lists of files as published, a loose report a study. Known files are there, of the right size and
without content, as sparse files that take no disk; what ingest would have written for them (rows
of results, shards, reports) is written straight away. ``prove`` shows at 1,000 real files that the
rows are those of ingest. "none new" is a run of which nothing differs, "tables anew" one that has
forgotten what the last one wrote, "ten new" has ten real studies more.

"look" is what `lapvqa run` does before anything else: it lists the archive and compares; where
nothing is new, that is all. Its floor is the same walk by others (``peers``): find, which asks each
file for size and time, and os.scandir with a stat of each file, in Python.

    python benchmarks/bench_scale.py [--base COMMIT] [--keep FOLDER] [ENTRIES ...]
                                                                default: 1000 10000

``--base`` measures that commit beside this one, in turns. ``--keep`` leaves the made archives in
FOLDER, for the next time: at 377,110 entries they take minutes to make. Seconds are of the whole
process of a stage, its start included.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian
from ruamel.yaml import YAML

from lapvqa import storage
from lapvqa.identity import Ids, Keyring
from lapvqa.images.shards import IMAGE_BYTES, SHARD, shard_name
from lapvqa.ingest.archives.mimic import MimicArchive
from lapvqa.ingest.one_file import RESULTS, Context, Task, process_file, split_point
from lapvqa.ingest.pool import process_all
from lapvqa.ingest.reports import REPORTS, open_reports
from lapvqa.ingest.result_store import open_files
from lapvqa.machine import ReportSources
from lapvqa.params import load_params
from lapvqa.project import Project
from lapvqa.schemas import CHEXPERT_LABELS

REPOSITORY = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "scale-cpu.json"
NEW, SIDE, REPEATS = 10, 64, 3
FILES = 300
SMALL = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE), dtype=np.uint8).tobytes()
KEY = b"0123456789abcdef" * 2
TIME_NS = 1_700_000_000_000_000_000
_UID = b"1.2.3.1000000000"
_WORDS = [
    "heart",
    "size",
    "is",
    "normal",
    "lungs",
    "are",
    "clear",
    "without",
    "effusion",
    "or",
    "pneumothorax",
    "consolidation",
    "mild",
    "edema",
    "of",
    "the",
    "left",
    "right",
    "base",
    "unchanged",
    "small",
    "opacity",
    "which",
    "may",
    "reflect",
    "atelectasis",
    "osseous",
    "structures",
]
_REPORT_WORDS = 100
_INVENTED = ("mtime_ns", "file_sha256", "pixels_sha256", "decoded_sha256", "shard")
_SYNTHETIC_PIXELS = hashlib.sha256(bytes(IMAGE_BYTES)).hexdigest()


@dataclass(frozen=True)
class Entry:
    """One image of the made archive, and what its tables say of it."""

    number: int

    @property
    def study(self) -> int:
        """Studies have one image or two: 377,110 images are 215,492 studies."""
        group, place = divmod(self.number, 7)
        return 50_000_000 + 4 * group + place // 2

    @property
    def subject(self) -> int:
        """A patient has three or four studies."""
        return 10_000_000 + 150 * ((self.study - 50_000_000) * 2 // 7)

    @property
    def image(self) -> str:
        """A dicom_id."""
        digits = hashlib.sha256(str(self.number).encode()).hexdigest()
        return "-".join(digits[start : start + 8] for start in range(0, 40, 8))

    @property
    def folder(self) -> str:
        """The study's."""
        return f"files/p{str(self.subject)[:2]}/p{self.subject}/s{self.study}"

    @property
    def path(self) -> str:
        """The file's."""
        return f"{self.folder}/{self.image}.dcm"

    @property
    def date(self) -> int:
        """One of 32,400 days, as MIMIC-CXR's are spread over a century."""
        day = self.study * 7919 % 32_400
        return 21_100_101 + day // 360 * 10_000 + day % 360 // 30 * 100 + day % 28

    @property
    def split(self) -> str:
        """One of a patient's."""
        return ("train", "validate", "test")[max(0, self.subject // 150 % 50 - 47)]

    @property
    def report(self) -> bytes:
        """Text of the study's report."""
        chosen = np.random.default_rng(self.study).integers(0, len(_WORDS), _REPORT_WORDS)
        text = " ".join(_WORDS[word] for word in chosen)
        return f"FINAL REPORT\n FINDINGS: {text}.\n".encode()


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


class Made:
    """An archive and a project over it; ``entries`` of its images are known, or none yet."""

    def __init__(self, scratch: Path, entries: int) -> None:
        self.archive, self.root = scratch / "archive", scratch / "project"
        self.entries = [Entry(number) for number in range(entries)]
        self.data = template(SIDE, SIDE, SMALL)
        if not self.root.exists():
            self._make_project()
            self._write_tables(entries + NEW * REPEATS * 7)

    @property
    def project(self) -> Project:
        """The project."""
        return Project(self.root)

    def _make_project(self) -> None:
        (self.root / ".lapvqa").mkdir(parents=True)
        (self.root / ".lapvqa/deid.key").write_bytes(KEY)
        shutil.copy(REPOSITORY / "params.yaml", self.root)
        local = {"paths": {"source": str(self.archive)}, "workers": 2}
        YAML().dump(local, self.root / "local.yaml")

    def _write_tables(self, entries: int) -> None:
        made = [Entry(number) for number in range(entries)]
        studies = {entry.study: entry for entry in made}.values()
        start = "mimic-cxr-2.0.0-"
        self._table(
            f"{start}metadata.csv.gz",
            ("dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription",
             "ViewPosition", "Rows", "Columns", "StudyDate", "StudyTime",
             "ProcedureCodeSequence_CodeMeaning", "ViewCodeSequence_CodeMeaning",
             "PatientOrientationCodeSequence_CodeMeaning"),
            ((e.image, e.subject, e.study, "CHEST (PA AND LAT)",
              ("PA", "LATERAL")[e.number % 7 % 2],
              3056, 2544, e.date, f"{e.study * 7 % 140000 + 90000}.{e.study % 1000:03d}",
              "CHEST (PA AND LAT)", "postero-anterior", "Erect") for e in made),
        )  # fmt: skip
        self._table(
            f"{start}split.csv.gz",
            ("dicom_id", "study_id", "subject_id", "split"),
            ((e.image, e.study, e.subject, e.split) for e in made),
        )
        self._table(
            f"{start}chexpert.csv.gz",
            ("subject_id", "study_id", *CHEXPERT_LABELS),
            ((e.subject, e.study, *("", "1.0", "0.0", "-1.0")[e.study % 4 :], *[""] * 14)[:16]
             for e in studies),
        )  # fmt: skip
        self._table(
            "cxr-record-list.csv.gz",
            ("subject_id", "study_id", "dicom_id", "path"),
            ((e.subject, e.study, e.image, e.path) for e in made),
        )
        self._table(
            "cxr-study-list.csv.gz",
            ("subject_id", "study_id", "path"),
            ((e.subject, e.study, f"{e.folder}.txt") for e in studies),
        )

    def _table(self, name: str, header: tuple[str, ...], rows: Iterator[tuple[Any, ...]]) -> None:
        self.archive.mkdir(parents=True, exist_ok=True)
        path = self.archive / name
        with gzip.open(path, "wt", newline="", compresslevel=6) as handle:
            csv.writer(handle).writerows(chain([header], rows))

    def add_real(self, entries: list[Entry]) -> None:
        """Write files and reports that are really there."""
        for entry in entries:
            folder = self.archive / entry.folder
            folder.mkdir(parents=True, exist_ok=True)
            (self.archive / entry.path).write_bytes(self._bytes(entry))
            folder.with_suffix(".txt").write_bytes(entry.report)

    def _bytes(self, entry: Entry) -> bytes:
        own = self.data.replace(_UID, f"1.2.3.{entry.number + 10**9:010d}".encode())
        return own[:-8] + entry.number.to_bytes(8, "little")

    def add_known(self) -> None:
        """Write what an inventory sees of all entries: files of the right size, and empty."""
        done = self.root / "known"
        if done.exists():
            return
        for entry in self.entries:
            self._hollow(self.archive / entry.path, len(self.data))
            report = self.archive / f"{entry.folder}.txt"
            if not report.exists():
                self._hollow(report, len(entry.report))
        done.touch()

    def remove(self, entries: list[Entry]) -> None:
        """Delete these images, and the reports of studies that have no other."""
        for entry in entries:
            path = self.archive / entry.path
            path.unlink()
            if not any(path.parent.iterdir()):
                path.parent.rmdir()
                path.parent.with_suffix(".txt").unlink()

    @staticmethod
    def _hollow(path: Path, size: int) -> None:
        """Write a file of zeros that takes no disk."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as handle:
            handle.truncate(size)
        os.utime(path, ns=(TIME_NS, TIME_NS))

    def write_stores(self) -> None:
        """Write rows, shards and reports, into the folders that this code opens."""
        project = self.project
        params = load_params(project.params).ingest
        work_dir = project.work_dir("ingest")
        store = open_files(work_dir, self.archive, params, KEY)
        if any(store.folder.glob("rows-*.parquet")):
            return
        ordered = sorted(self.entries, key=lambda entry: entry.path)
        one = self._result(ordered[0])
        for start in range(0, len(ordered), params.shard_images):
            group = ordered[start : start + params.shard_images]
            rows = self._rows(group, one)
            shard = shard_name(rows["image_key"], rows["pixels_sha256"])
            _write_sparse_shard(store.folder / shard, rows["image_key"])
            rows |= {"shard": [shard] * len(group), "row": range(len(group))}
            path = store.folder / f"rows-{start:016x}.parquet"
            storage.write_table(path, pa.table(rows, schema=RESULTS), RESULTS)
        archive = object.__new__(MimicArchive)
        stated = ReportSources().digest()
        folder = open_reports(work_dir, self.archive, archive, params.deid.reports, stated)
        studies = sorted({entry.study: entry for entry in ordered}.values(), key=lambda e: e.folder)
        texts = [entry.report.decode() for entry in studies]
        columns: dict[str, Any] = {name: [None] * len(studies) for name in REPORTS.names} | {
            "path": [f"{entry.folder}.txt" for entry in studies],
            "size": [len(text) for text in texts],
            "stamp": [TIME_NS] * len(studies),
            "sha256": [hashlib.sha256(text.encode()).hexdigest() for text in texts],
            "text": texts,
            "encoding": ["utf-8"] * len(studies),
            "form": ["text"] * len(studies),
            "status": [""] * len(studies),
            "written": [""] * len(studies),
            "flags": [[]] * len(studies),
        }
        path = folder / f"{0:016x}.parquet"
        storage.write_table(path, pa.table(columns, schema=REPORTS), REPORTS)

    def _result(self, entry: Entry) -> dict[str, Any]:
        """Return what ingest makes of one real file: the others differ by identifiers only."""
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "a.dcm").write_bytes(self._bytes(entry))
            written = (Path(folder) / "a.dcm").stat()
            ids = Ids(entry.image, "1", "1")
            task = Task("a.dcm", written.st_size, written.st_mtime_ns, ids, is_picture=False)
            result = process_file(task, Context(Path(folder), Keyring(KEY), 0))
        return {name: getattr(result, name) for name in RESULTS.names}

    def _rows(self, entries: list[Entry], one: dict[str, Any]) -> dict[str, Any]:
        ring = Keyring(KEY)
        rows: dict[str, Any] = {name: [one[name]] * len(entries) for name in RESULTS.names}
        ids = [Ids(entry.image, str(entry.study), str(entry.subject)) for entry in entries]
        seed = load_params(self.project.params).ingest.split.seed
        return rows | {
            "path": [entry.path for entry in entries],
            "size": [len(self.data)] * len(entries),
            "mtime_ns": [TIME_NS] * len(entries),
            "layout_digest": [Task("", 0, 0, own, False).layout_digest(ring) for own in ids],
            "file_sha256": [hashlib.sha256(entry.path.encode()).hexdigest() for entry in entries],
            "pixels_sha256": [_SYNTHETIC_PIXELS] * len(entries),
            # Another for each: equal ones of one patient would be one film.
            "decoded_sha256": [
                hashlib.sha256(entry.path.encode()).hexdigest() for entry in entries
            ],
            "image_key": [ring.image(entry.image) for entry in entries],
            "instance_key": [ring.image(f"1.2.3.{entry.number + 10**9:010d}") for entry in entries],
            "study_key": [ring.study(str(entry.study)) for entry in entries],
            "patient_key": [ring.patient(str(entry.subject)) for entry in entries],
            "split_point": [split_point(seed, str(entry.subject)) for entry in entries],
        }


class _Holes(io.RawIOBase):
    """A file in which long runs of zeros are holes."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        size = len(data)
        if size > 1 << 20:
            self._file.seek(size, os.SEEK_CUR)
        else:
            self._file.write(data)
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


def _write_sparse_shard(path: Path, keys: list[str]) -> None:
    """Write a shard of black images that takes no disk."""
    zeros = pa.py_buffer(np.zeros(len(keys) * IMAGE_BYTES, np.uint8))
    kind = pa.binary(IMAGE_BYTES)
    images = pa.FixedSizeBinaryArray.from_buffers(kind, len(keys), [None, zeros])
    batch = pa.record_batch([pa.array(keys, pa.string()), images], schema=SHARD)
    with pa.PythonFile(_Holes(path), mode="w") as sink, pa.ipc.new_file(sink, SHARD) as writer:
        writer.write_batch(batch)


_STAGE = """
import re, sys
from lapvqa.stage import main
code = main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
sys.exit(code)
"""
"""The stage, and the peak of its memory; that of ``wait4`` is never under the starter's own."""


_LOOK = """
from pathlib import Path
from lapvqa.inventory import list_folder
from lapvqa.uptodate.input_folders import digest
digest(list_folder("source", {"source": Path("../archive")}))
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
"""
_WALK = """
import os
pending = ["../archive"]
while pending:
    with os.scandir(pending.pop()) as found:
        for child in found:
            if child.is_dir():
                pending.append(child.path)
            else:
                child.stat()
print(0)
"""
_FIND = "find ../archive -printf '%s %T@ %p\\n' >/dev/null && echo 0"


def run(root: Path, tree: Path, stage: str = "ingest") -> dict[str, float]:
    """Run a stage by the code in ``tree``; return wall and CPU seconds and peak memory in MB."""
    return _measured([sys.executable, "-P", "-c", _STAGE, stage], root, tree)


def _measured(command: list[str], root: Path, tree: Path) -> dict[str, float]:
    started = time.perf_counter()
    child = subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(tree)}
    )
    assert child.stdout is not None
    said = child.stdout.read().split()
    _, status, usage = os.wait4(child.pid, 0)
    wall, cpu = time.perf_counter() - started, usage.ru_utime + usage.ru_stime
    if status:
        raise SystemExit(f"{command[-1]} failed")
    return {
        "wall_s": round(wall, 2),
        "cpu_s": round(cpu, 2),
        "peak_mb": round(int(said[-1]) / 1024),
    }


def peers(root: Path, tree: Path, repeats: int) -> dict[str, Any]:
    """Return what the walk alone costs others, in turns, and the ratio of ``look`` to each."""
    commands = {
        "look": [sys.executable, "-P", "-c", _LOOK],
        "find": ["sh", "-c", _FIND],
        "scandir": [sys.executable, "-c", _WALK],
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            found[name].append(_measured(command, root, tree))
    ratios = {
        name: [round(a["cpu_s"] / b["cpu_s"], 2) for a, b in zip(found["look"], own, strict=True)]
        for name, own in found.items()
        if name != "look"
    }
    return {**found, "look_to_peer_cpu": ratios}


def rows_of(folder: Path, pattern: str) -> pa.Table:
    """Return the rows that a store holds, in order of path."""
    import pyarrow.parquet as pq

    return pa.concat_tables(pq.read_table(file) for file in folder.glob(pattern)).sort_by("path")


def prove(scratch: Path, entries: int = 1000) -> None:
    """Show that the rows written here are those of ingest; raises SystemExit if they are not."""
    real, made = Made(scratch / "real", entries), Made(scratch / "made", entries)
    real.add_real(real.entries)
    for stage in ("inventory", "ingest"):
        run(real.root, REPOSITORY, stage)
    made.add_known()
    made.write_stores()
    for pattern in ("files-*/rows-*.parquet", "reports-*/*.parquet"):
        one, two = (rows_of(m.project.work_dir("ingest"), pattern) for m in (real, made))
        names = [name for name in one.column_names if name not in (*_INVENTED, "stamp")]
        for name in names:
            if not one[name].combine_chunks().equals(two[name].combine_chunks()):
                raise SystemExit(f"column {name} of the synthetic store is not that of ingest")
    print(f"{entries} synthetic entries have the rows that ingest writes of real ones")
    shutil.rmtree(scratch)


def write_here(scratch: Path, entries: int, tree: Path) -> None:
    """Write the stores with the code of ``tree``, in a process of its own."""
    command = [sys.executable, "-P", __file__, "--write", str(scratch), str(entries)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(tree)})


def measure(
    entries: int, scratch: Path, trees: dict[str, Path], *, keep: bool = False
) -> dict[str, Any]:
    """Measure one size of archive with each code tree, in turns; the least of the repeats."""
    made = Made(scratch, entries)
    made.add_known()
    run(made.root, trees["this"], "inventory")
    for tree in trees.values():
        write_here(scratch, entries, tree)
    run(made.root, trees["this"])  # the first run writes many files of rows anew as one
    walks = peers(made.root, trees["this"], REPEATS)
    found: dict[str, dict[str, list[dict[str, float]]]] = {
        name: {what: [] for what in (
            "none_new_inventory", "none_new", "tables_anew", "ten_new_inventory", "ten_new",
        )} for name in trees
    }  # fmt: skip
    number = entries
    arrived: list[Entry] = []
    for _ in range(REPEATS if entries <= 100_000 else 1):
        for name, tree in trees.items():
            found[name]["none_new_inventory"].append(run(made.root, tree, "inventory"))
            if len(trees) > 1:  # the last run was of other code
                run(made.root, tree)
            found[name]["none_new"].append(run(made.root, tree))
            shutil.rmtree(made.project.work_dir("ingest") / "last", ignore_errors=True)
            found[name]["tables_anew"].append(run(made.root, tree))
        arrived += (new := [Entry(n) for n in range(number, number + 7 * NEW // 4)])
        made.add_real(new)
        number += 7 * NEW
        for name, tree in trees.items():
            found[name]["ten_new_inventory"].append(run(made.root, tree, "inventory"))
            found[name]["ten_new"].append(run(made.root, tree))
    if keep:
        made.remove(arrived)
    else:
        shutil.rmtree(scratch)
    return {
        "entries": entries,
        "walk": walks,
        **{
            name: {
                what: {key: min(run[key] for run in runs) for key in runs[0]}
                for what, runs in kinds.items()
            }
            for name, kinds in found.items()
        },
    }


def speed(folder: Path, workers: int) -> float:
    """Return files per second of the worker pool, from its first result to its last."""
    context = Context(folder, Keyring(b"0123456789abcdef"), 0)
    tasks = [
        Task(path.name, path.stat().st_size, path.stat().st_mtime_ns, Ids(), False)
        for path in sorted(folder.iterdir())
    ]
    started, done = 0.0, 0
    for result in process_all([tasks], context, workers=workers, at_once=True):
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


def main(sizes: list[int], base: str | None, keep: Path | None) -> None:
    """Prove, measure every size, print, keep."""
    parent = os.environ.get("LAPVQA_BENCH_DIR")
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        prove(Path(folder) / "proof")
        scaling = two_workers(Path(folder))
        trees = {"this": REPOSITORY}
        if base:
            trees = {"base": Path(folder) / "base", **trees}
            command = ["git", "worktree", "add", "--detach", str(trees["base"]), base]
            subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
        rows = []
        for entries in sizes:
            scratch = (keep or Path(folder)).resolve() / f"scale-{entries}"
            rows.append(measure(entries, scratch, trees, keep=keep is not None))
            print(json.dumps(rows[-1]), flush=True)
        if base:
            command = ["git", "worktree", "remove", "--force", str(trees["base"])]
            subprocess.run(command, cwd=REPOSITORY, check=True)
    first, last = rows[0], rows[-1]
    for name in trees if len(rows) > 1 else ():
        for what in ("none_new", "tables_anew"):
            spent = [row[name][what]["wall_s"] for row in (first, last)]
            cost = 1e6 * (spent[1] - spent[0]) / (last["entries"] - first["entries"])
            print(f"{name}, {what}: each known file costs a run {cost:.1f} microseconds")
    result = {
        "what": __doc__.splitlines()[0] if __doc__ else "",
        "date": time.strftime("%Y-%m-%d"),
        "load_average": os.getloadavg()[0],
        "cores": os.cpu_count(),
        "versions": {name: version(name) for name in ("numpy", "pyarrow", "pydicom")},
        "base": base,
        "sizes": rows,
        "two_workers": scaling,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("entries", nargs="*", type=int, default=[1000, 10_000])
    parser.add_argument("--base", help="a commit to measure beside this code")
    parser.add_argument("--keep", type=Path, help="leave the made archives here for the next time")
    parser.add_argument("--write", nargs=2, metavar=("SCRATCH", "ENTRIES"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.write:
        Made(Path(chosen.write[0]), int(chosen.write[1])).write_stores()
    else:
        main(chosen.entries, chosen.base, chosen.keep)
