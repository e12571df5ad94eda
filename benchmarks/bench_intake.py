"""Receiving: files a second by C-STORE, the time to an acknowledgement, memory over thousands.

    python benchmarks/bench_intake.py [FILES]

dcmtk's dcmsend sends drawn radiographs (724 x 724, 12 bits, 1 MB, two a study) to `lapvqa
receive` and to dcmtk's storescp, the peer, one after the other on loopback. Ours flushes each file
to disk before it acknowledges it, storescp does not; so the writing alone is measured too: the same
bytes, a fsync and a rename for each file.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil
from ruamel.yaml import YAML

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "tests" / "dicom"), str(REPOSITORY / "tests")]
MADE = importlib.import_module("made_dicom")  # the tests' own

RESULT = Path(__file__).parent / "results" / "intake-cpu.json"
SIDE = 724
SETTINGS = {
    "quiet_seconds": 1.0, "min_free_gb": 0.0,
    "receive": {"port": 0, "sources": {"WARD": {"callers": ["PACS1"]}}},
}  # fmt: skip


def write_films(folder: Path, number: int) -> None:
    """Write radiographs of one picture and many names."""
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 4096, (SIDE, SIDE)).astype(np.uint16)
    for one in range(number):
        data = MADE.dicom_bytes(
            noise, SOPInstanceUID=f"1.2.3.{one}", StudyInstanceUID=f"1.2.{one // 2}"
        )
        (folder / f"{one:06d}.dcm").write_bytes(data)


@contextmanager
def receiving(root: Path) -> Iterator[tuple[int, psutil.Process]]:
    """Run `lapvqa receive` on an empty archive; yield its port and process."""
    archive = root / "archive"
    archive.mkdir()
    project = MADE.write_project(root / "project", archive)
    (project.root / "dvc.yaml").write_text("stages: {}\n")
    values = YAML(typ="safe").load(project.local)
    with project.local.open("w") as file:
        YAML(typ="safe").dump({**values, "intake": SETTINGS}, file)
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "receive"], cwd=project.root, text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    found = re.search(r"port (\d+)", process.stdout.readline())
    assert found
    with (root / "lines").open("w") as lines:
        copying = subprocess.Popen(["cat"], stdin=process.stdout, stdout=lines)
        yield int(found[1]), psutil.Process(process.pid)
        process.terminate()
        process.wait()
        copying.wait()


def send(port: int, files: list[Path]) -> float:
    """Send files over one association; return the seconds."""
    began = time.perf_counter()
    subprocess.run(
        ["dcmsend", "-aet", "PACS1", "-aec", "WARD", "127.0.0.1", str(port), *map(str, files)],
        check=True,
    )
    return time.perf_counter() - began


def main() -> None:
    """Measure, and write the result."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_films(root / "films", number)
        films = sorted((root / "films").iterdir())
        size = films[0].stat().st_size
        seconds, memory = [], []
        with receiving(root) as (port, process):
            parts = [films[at : at + number // 10] for at in range(0, number, number // 10)]
            for part in parts:
                seconds.append(send(port, part))
                memory.append(process.memory_info().rss)
            while list((root / "archive" / ".inbox").rglob("*.dcm")):
                time.sleep(0.5)
            processor = sum(process.cpu_times()[:2])
        filed = len(list((root / "archive" / "WARD").rglob("*.dcm")))
        assert filed == number, filed
        shutil.rmtree(root / "archive")
        peer = _peer(root, films)
        alone = _writing(root, films[: number // 10])
    result = {
        "date": date.today().isoformat(), "cpu": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)), "python": platform.python_version(),
        "pynetdicom": version("pynetdicom"), "load": os.getloadavg()[0],
        "files": number, "bytes_each": size,
        "lapvqa": {
            "files_per_second": number / sum(seconds), "cpu_ms_per_file": 1e3 * processor / number,
            "rss_mb_after_tenths": [round(one / 1e6, 1) for one in memory],
        },
        "storescp": {"files_per_second": number / peer},
        "writing_alone": {"files_per_second": number // 10 / alone},
    }  # fmt: skip
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def _peer(root: Path, films: list[Path]) -> float:
    folder = root / "peer"
    folder.mkdir()
    process = subprocess.Popen(["storescp", "-od", str(folder), "+xa", "11199"])
    time.sleep(1)
    try:
        seconds = send(11199, films)
    finally:
        process.terminate()
        process.wait()
    shutil.rmtree(folder)
    return seconds


def _writing(root: Path, films: list[Path]) -> float:
    folder = root / "alone"
    folder.mkdir()
    contents = [path.read_bytes() for path in films]
    began = time.perf_counter()
    for number, content in enumerate(contents):
        part = folder / f"{number}.part"
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.rename(folder / f"{number}.dcm")
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
