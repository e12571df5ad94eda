"""The GPU benchmark runs, tiny, where there is no GPU, and claims nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bench_gpu

SCRIPT = Path(bench_gpu.__file__)
KEPT = SCRIPT.parent / "results" / "gpu.json"
ONLY_ON_A_GPU = ("compiled", "data sheet", "peak memory, T 128", "waits", "attention of a block")
NAMED_ONLY_ON_A_GPU = ("loss after 200 steps: cudnn", "loss after 200 steps: flash")


def test_runs_tiny_and_keeps_nothing() -> None:
    """All parts but those that are a GPU's own; resume by a process that is really killed."""
    before = KEPT.read_bytes()
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--tiny", "--device", "cpu"],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert KEPT.read_bytes() == before
    first, *lines = done.stdout.splitlines()
    assert first == "tiny: these figures show that the script runs, nothing else"
    assert len(lines) == len(bench_gpu.rows()) <= 40
    missing = [line for line in lines if "not measured" in line]
    assert all(
        any(name in line for name in (*ONLY_ON_A_GPU, *NAMED_ONLY_ON_A_GPU, "efficient"))
        for line in missing
    )
    assert len(missing) == 13, missing
    (resumed,) = (line for line in lines if line.startswith("kill -9"))
    assert resumed.split()[-2] == "1"


def test_what_needs_no_gpu_is_counted_without_one() -> None:
    found: bench_gpu.Found = {}
    bench_gpu.counted(bench_gpu.FULL, found)
    assert found["flops"] == pytest.approx(1.515, rel=0.01)
    assert found["planned"] == pytest.approx(93.2, rel=0.02)
