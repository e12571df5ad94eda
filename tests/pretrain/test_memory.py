"""The plan of memory holds: beside torch's profiler, beside the process's own memory.

And where memory does not suffice, the error names settings that do.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from real_step import CPU, allocated, trainer, work

from lapvqa.errors import TrainingError
from lapvqa.networks.allocation_counter import AllocationCounter
from lapvqa.networks.encoder import Block
from lapvqa.params import ModelParams, PretrainParams
from lapvqa.pretrain import memory, train
from lapvqa.pretrain.allocations import Workload
from lapvqa.pretrain.compiled_blocks import kept
from lapvqa.pretrain.memory import forecast
from lapvqa.pretrain.objectives.table import OBJECTIVES

TINY = ModelParams(
    image_size=64, patch_size=16, width=64, depth=2, heads=2, pooled_grid=4, decoder_width=64,
    decoder_depth=1, decoder_heads=2, text_width=64, text_depth=2, text_heads=2, embed_dim=64,
)  # fmt: skip
SMALL = ModelParams(
    image_size=96, patch_size=16, width=128, depth=4, heads=4, pooled_grid=4, decoder_width=128,
    decoder_depth=2, decoder_heads=4, text_width=128, text_depth=2, text_heads=4, embed_dim=64,
)  # fmt: skip
MEDIUM = ModelParams(
    image_size=224, patch_size=16, width=192, depth=4, heads=3, pooled_grid=7, decoder_width=192,
    decoder_depth=2, decoder_heads=3, text_width=192, text_depth=2, text_heads=3, embed_dim=64,
)  # fmt: skip
LENGTH = 60
BF16 = partial(torch.autocast, "cpu", dtype=torch.bfloat16)
CHILD = Path(__file__).with_name("real_step.py")


def settings(model: ModelParams, *, batch_size: int = 16, **others: Any) -> PretrainParams:
    return PretrainParams(model=model, epochs=2, batch_size=batch_size, lr=1e-3, **others)


CHANGES: list[dict[str, Any]] = [
    {},
    {"checkpoint_activations": True},
    {"keep_patches": 0.5},
    {"accumulate": 2},
    {"accumulate": 4, "checkpoint_activations": True, "augment": False},
]


OF_EACH = [
    *(("captioning", change) for change in CHANGES),
    *((name, CHANGES[place]) for name in OBJECTIVES for place in (0, 3) if name != "captioning"),
]
"""What an objective has of its own is its step, whole and cut; all else is any one's."""


@pytest.mark.parametrize(("objective", "change"), OF_EACH)
def test_is_what_torch_allocates(objective: str, change: dict[str, Any], tmp_path: Path) -> None:
    params = settings(SMALL, objective=objective, **change)
    found, one = allocated(tmp_path, params, LENGTH)
    assert forecast(params, work(one, LENGTH)).peak == pytest.approx(found, rel=0.1)


@pytest.mark.parametrize(("model", "batch_size"), [(TINY, 4), (TINY, 64), (MEDIUM, 8)])
def test_is_so_whatever_the_peak_is_made_of(
    model: ModelParams, batch_size: int, tmp_path: Path
) -> None:
    """The model's making, the head, the encoder."""
    params = settings(model, batch_size=batch_size)
    found, one = allocated(tmp_path, params, LENGTH)
    assert forecast(params, work(one, LENGTH)).peak == pytest.approx(found, rel=0.1)


def run_child(
    folder: Path, params: PretrainParams, *limit: int
) -> subprocess.CompletedProcess[str]:
    # Freed blocks go back at once, so that holes of the C library's heap are no part of it.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, str(CHILD), str(folder), params.model_dump_json(), str(LENGTH)]
    return subprocess.run(
        [*command, *map(str, limit)], capture_output=True, text=True, env=environment, check=False
    )


@pytest.mark.slow
def test_is_what_the_process_grows_by(tmp_path: Path) -> None:
    params = settings(MEDIUM, batch_size=32)
    done = run_child(tmp_path, params)
    assert done.returncode == 0, done.stderr
    planned = forecast(params, Workload(LENGTH, LENGTH, vocabulary=1001, on_gpu=False))
    grown = int(done.stdout)
    assert grown > 400e6
    assert planned.peak - planned.parts["weights"] == pytest.approx(grown, rel=0.1)


@pytest.mark.slow
def test_without_enough_memory_the_error_names_settings_that_do(tmp_path: Path) -> None:
    """The kernel refuses the memory: nothing here is raised by a test."""
    limit = 150
    failed = run_child(tmp_path / "a", settings(MEDIUM), limit)
    assert failed.returncode == 1
    last = failed.stderr[failed.stderr.index("lapvqa.errors.TrainingError:") :]
    assert "out of memory on cpu with micro-batches of 16 images: they take 0.24 GB" in last
    assert "set pretrain.accumulate to 4 (now 1): micro-batches of 4 take 0.11 GB" in last
    assert "or pretrain.checkpoint_activations to true" in last
    done = run_child(tmp_path / "b", settings(MEDIUM, accumulate=4), limit)
    assert done.returncode == 0, done.stderr


def test_the_same_is_said_of_what_torch_and_numpy_raise(tmp_path: Path) -> None:
    one = trainer(tmp_path, settings(TINY, batch_size=4), 8)
    for lack in (
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9"),
    ):
        with (
            pytest.raises(TrainingError, match="micro-batches of 4"),
            train.explain_out_of_memory(one),
        ):
            raise lack


def test_any_other_runtime_error_stays_what_it_is(tmp_path: Path) -> None:
    one = trainer(tmp_path, settings(TINY, batch_size=4), 8)
    fault = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="mat1") as caught, train.explain_out_of_memory(one):
        raise fault
    assert caught.value is fault


def test_vit_l_14_is_what_saved_tensors_add_up_to() -> None:
    """Under autocast about 650 MB an image stay for the backward pass of the encoder."""
    params = PretrainParams(epochs=1, batch_size=128, lr=1e-4)
    plain = forecast(params, Workload(length=128, targets=64))
    assert plain.parts["encoder"] / 128 == pytest.approx(650e6, rel=0.02)
    count = plain.parts["weights"] / 4
    assert count == pytest.approx(355.4e6, rel=0.001)
    assert plain.parts["optimizer states"] == pytest.approx(2 * 4 * count, rel=0.001)
    assert plain.parts["weights in bf16"] == pytest.approx(2 * count, rel=0.01)
    cut = params.model_copy(update={"checkpoint_activations": True})
    recomputing = forecast(cut, Workload(length=128, targets=64))
    # The input of each of 24 blocks, float32: 4 * 730 * 1024 bytes.
    assert recomputing.parts["encoder"] / 128 == pytest.approx(24 * 4 * 730 * 1024, rel=0.1)


def test_what_fits_is_the_largest_that_does() -> None:
    params, given = settings(TINY, batch_size=16), Workload(LENGTH, 30.0, vocabulary=2000)
    peaks = {
        count: forecast(params.model_copy(update={"accumulate": count}), given).peak
        for count in (1, 2, 4, 8, 16)
    }
    assert sorted(peaks.values(), reverse=True) == list(peaks.values())
    plain, recomputing = memory.largest_that_fit(params, given, peaks[4])
    assert (plain.accumulate, plain.rows, plain.peak) == (4, 4, peaks[4])
    assert recomputing.checkpointing
    assert recomputing.accumulate <= 4
    assert memory.largest_that_fit(params, given, 1e6) == []


def test_more_processes_share_the_batch_and_keep_a_copy_of_the_gradients() -> None:
    alone = forecast(settings(MEDIUM, batch_size=8), Workload(LENGTH, 30.0, vocabulary=1000))
    params = settings(MEDIUM, batch_size=16)
    shared = forecast(params, Workload(LENGTH, 30.0, vocabulary=1000, processes=2))
    assert shared.rows == 8
    assert shared.peak - alone.peak == pytest.approx(alone.parts["weights"], rel=0.02)


def test_the_ledger_counts_real_storages_once_and_until_they_are_freed() -> None:
    with AllocationCounter(granularity=512) as ledger:
        first = torch.zeros(1000)
        view = first[:10]
        assert ledger.live.total() == 4096
        second = torch.zeros(1000) + view.sum()
        del first
        assert ledger.live.total() >= 2 * 4096  # the view keeps it
        del view, second
        assert ledger.live.total() == 0
        assert ledger.peak >= 3 * 4096
    assert CPU.type == "cpu"


@pytest.mark.parametrize("how", [contextlib.nullcontext, BF16], ids=["float32", "bfloat16"])
def test_what_a_block_keeps_is_what_torch_keeps(how: Any) -> None:
    """The compiled one as torch's own backend with the same partitioner, without a compiler."""
    block, x = Block(64, 2), torch.randn(4, 33, 64, requires_grad=True)
    own = {parameter.untyped_storage()._cdata for parameter in block.parameters()}

    def found(act: Any) -> int:
        tensors: list[torch.Tensor] = []
        with (
            torch.autograd.graph.saved_tensors_hooks(
                lambda one: tensors.append(one) or one, lambda one: one
            ),
            how(),
        ):
            act(x)
        sizes = {one.untyped_storage()._cdata: one.untyped_storage().nbytes() for one in tensors}
        return sum(size for storage, size in sizes.items() if storage not in own)

    assert kept(block, [x], how, compiled=False) == found(block)
    compiled = torch.compile(block, backend="aot_eager_decomp_partition")
    assert kept(block, [x], how, compiled=True) == found(compiled)


def test_compiled_blocks_take_less_on_a_gpu_by_what_they_do_not_keep() -> None:
    eager, given = settings(MEDIUM), Workload(LENGTH, 30.0, vocabulary=1000)
    compiled = eager.model_copy(update={"compile": True})
    plans = [forecast(one, given) for one in (eager, compiled)]
    # A float32 residual of [B, N, D] and two bytes more of the text's, block by block.
    spared = 16 * 4 * 197 * 192 * 2
    assert plans[0].parts["encoder"] - plans[1].parts["encoder"] == pytest.approx(spared, rel=0.1)
    assert plans[1].peak < plans[0].peak
    cut = {"checkpoint_activations": True}
    assert (
        forecast(compiled.model_copy(update=cut), given).peak
        == forecast(eager.model_copy(update=cut), given).peak
    )


def test_advice_knows_whether_blocks_are_compiled() -> None:
    eager, given = settings(MEDIUM), Workload(LENGTH, 30.0, vocabulary=1000)
    compiled = eager.model_copy(update={"compile": True})
    between = (forecast(eager, given).peak + forecast(compiled, given).peak) / 2
    said = memory.advice(eager, given, between)
    assert said.startswith("set pretrain.compile to true: the same take ")
    assert "pretrain.accumulate to 2" in said
    assert "pretrain.compile false does without" in memory.advice(compiled, given, between)
    assert "pretrain.compile" not in memory.advice(compiled, given, 0.8 * between)
