"""The GPU benchmark runs, tiny, where there is no GPU, and claims nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bench_gpu.py"
KEPT = SCRIPT.parent / "results" / "gpu.json"


def test_runs_tiny_and_keeps_nothing() -> None:
    before = KEPT.read_bytes()
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--tiny"],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert KEPT.read_bytes() == before
    lines = done.stdout.splitlines()
    assert lines[0] == "tiny: these figures show that the script runs, nothing else"
    for part in ("captioning, as set", "encoder, forward", "head and loss", "optimizer step",
                 "reading a batch", "embedding alone", "captions of"):  # fmt: skip
        (line,) = (line for line in lines if line.startswith(part) and "compiled" not in line)
        assert "not measured" not in line
