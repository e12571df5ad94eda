"""The GPU benchmark runs, tiny, where there is no GPU, and claims nothing."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bench_gpu

SCRIPT = Path(bench_gpu.__file__)
KEPT = SCRIPT.parent / "results" / "gpu.json"
ONLY_ON_A_GPU = {
    *(f"train_{how}_short" for how in ("compiled", "fast", "lean")), "train_compiled_long",
    "mfu_data_sheet", "peak", "waits",
    *(f"{what}_{name}" for what in ("attention", "loss") for name in bench_gpu.BACKENDS),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
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
    named = dict(zip(bench_gpu.rows(), lines, strict=True))
    assert {name for name, line in named.items() if "not measured" in line} == ONLY_ON_A_GPU
    assert named["resume"].split()[-2:] == ["1", "1"]  # as found, and as wanted


WORKER = """
import json, os, sys, time
path = sys.argv[2]

def now(**changed):
    state = {**json.load(open(path)), **changed}
    open(path + ".new", "w").write(json.dumps(state))
    os.replace(path + ".new", path)
    return state

while (state := now(since=time.monotonic()))["left"]:
    part = state["left"][0]
    if part == "train_eager_short":
        os.kill(os.getpid(), 9)
    if part == "train_eager_long":  # begun long ago
        now(since=time.monotonic() - 1000)
        time.sleep(60)
    now(since=0.0, found={**state["found"], part: 2.0}, left=state["left"][1:],
        done=[*state["done"], part])
    if part == "embed":
        sys.exit("the context is spoilt")
now(since=0.0)
"""
"""Stands for the worker, which imports torch: one part kills it, one hangs, after one it ends."""


def test_what_dies_or_hangs_costs_its_own_rows_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    monkeypatch.setattr(bench_gpu, "__file__", str(script))
    chosen = argparse.Namespace(minutes=1, tiny=False, out=tmp_path / "gpu.json")
    state = bench_gpu.supervise(chosen, bench_gpu.TINY, torch.device("cpu"))
    rows = {name: row.line() for name, row in bench_gpu.table(state).items()}
    assert "failed: its process ended with -9" in rows["train_eager_short"]
    assert "failed: its process ended with -9" in rows["part_encoder"]  # measured with it
    assert "failed: stopped after 10" in rows["train_eager_long"]
    for name in ("embed", "captions", "resume", "loss_auto"):
        assert " 2 " in f"{rows[name]} "
    kept = json.loads(chosen.out.read_text())["rows"]
    assert (kept["embed"]["value"], kept["captions"]["value"]) == (2.0, 2.0)
    chosen.minutes = 0
    late = bench_gpu.table(bench_gpu.supervise(chosen, bench_gpu.TINY, torch.device("cpu")))
    assert "not measured: out of time" in late["embed"].line()


def test_a_fault_ends_its_part_alone_and_no_number_is_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parts(scale: object, device: object, found: bench_gpu.Found) -> dict[str, Callable]:
        del scale, device
        return {
            "train_eager_short": lambda: torch.empty(2).view(3),
            "loss_auto": lambda: found.update(loss_auto=float("nan")),
        }

    monkeypatch.setattr(bench_gpu, "parts", parts)
    path = tmp_path / "state.json"
    bench_gpu.State(left=["train_eager_short", "loss_auto"]).write(path)
    bench_gpu.work(bench_gpu.TINY, torch.device("cpu"), path)
    state = bench_gpu.State.read(path)
    out = argparse.Namespace(tiny=False, out=tmp_path / "gpu.json")
    bench_gpu.keep(out, state, torch.device("cpu"))
    kept = json.loads(out.out.read_text())["rows"]
    assert kept["train_eager_short"]["value"].startswith("failed: RuntimeError: shape '[3]'")
    assert kept["loss_auto"]["value"] == "nan"


def test_what_needs_no_gpu_is_counted_without_one() -> None:
    found: bench_gpu.Found = {}
    bench_gpu.counted(bench_gpu.FULL, found)
    assert found["flops"] == pytest.approx(1.515, rel=0.01)
    assert found["planned"] == pytest.approx(93.2, rel=0.02)
