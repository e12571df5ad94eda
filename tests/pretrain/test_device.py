"""A GPU that torch cannot use, and attention by one backend, forward and backward."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import real_step
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from watched_computing import as_on_a_gpu

from lapvqa.errors import ConfigError
from lapvqa.machine import Machine
from lapvqa.networks import device
from lapvqa.networks.device import (
    Computer,
    attention_by,
    check_attention,
    choose_device,
    make_deterministic,
    open_computer,
)
from lapvqa.networks.unusable_gpu import refuse_unusable_gpu
from lapvqa.params import Attention, ComputingParams, PretrainParams
from lapvqa.pretrain.objectives.table import OBJECTIVES
from lapvqa.recorder import Recorder

CPU = torch.device("cpu")
DRIVERS = {
    "535.104.05": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15",
    "570.86.15": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release B",
    "580.65.06": "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.65.06  Release B",
    "390.157": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  390.157  Wed Oct 12 09:19:07 UTC",
}


@pytest.fixture(autouse=True)
def exactness() -> Iterator[None]:
    """What a test says of equal bits holds for that test."""
    mode = torch.get_deterministic_debug_mode()
    yield
    torch.set_deterministic_debug_mode(mode)


def machine_with(root: Path, driver: str | None) -> Path:
    """A root folder with what a machine with one GPU shows of it."""
    (root / "dev").mkdir()
    (root / "dev" / "nvidia0").touch()
    if driver is not None:
        (root / "proc/driver/nvidia").mkdir(parents=True)
        gcc = "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n"
        (root / "proc/driver/nvidia/version").write_text(f"{DRIVERS[driver]}\n{gcc}")
    return root


@pytest.mark.parametrize(
    ("driver", "built", "way_out"),
    [
        ("535.104.05", "13.0", "update the driver to 580 or newer, or .* build for CUDA 12"),
        ("570.86.15", "13.0", "update the driver to 580 or newer, or .* build for CUDA 12"),
        ("390.157", "13.0", "update the driver to 580 or newer; or set device: cpu"),
        ("390.157", None, "update the driver to 525 or newer"),
        ("580.65.06", None, "install torch's build for CUDA 13"),
        ("535.104.05", None, "install torch's build for CUDA 12"),
        ("580.65.06", "13.0", "nvidia-smi"),
        ("580.65.06", "12.8", "nvidia-smi"),
        (None, "13.0", "load the GPU's driver"),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_an_error_with_both_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver, built, way_out
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.version, "cuda", built)
    with pytest.raises(ConfigError) as caught:
        refuse_unusable_gpu(machine_with(tmp_path, driver))
    said = str(caught.value)
    assert (driver or "of unknown version") in said
    assert (f"CUDA {built}" if built else "CPUs alone") in said
    assert re.search(way_out, said)
    assert "device: cpu" in said


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_gpu_that_somebody_hides_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    refuse_unusable_gpu(machine_with(tmp_path, "535.104.05"))


def test_a_machine_without_a_gpu_computes_on_its_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    refuse_unusable_gpu(tmp_path)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidiactl").touch()  # of a container that was given no GPU
    refuse_unusable_gpu(tmp_path)
    assert choose_device(Machine(device="cpu")) == CPU


class _Attention(TorchDispatchMode):
    """Counts the fused attention of CPUs; the plain one is made of products."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "scaled_dot_product" in str(func):
            self.seen["backward" if "backward" in str(func) else "forward"] += 1
        return func(*args, **(kwargs or {}))


def fused_in_a_step(
    folder: Path, params: PretrainParams, attention: Attention = "auto"
) -> Counter[str]:
    trainer = real_step.trainer(folder, params, length=6, attention=attention)
    (micro,) = trainer.steps(0, 1)
    with _Attention() as seen:
        trainer.gradients(micro, 0)
    return seen.seen


@pytest.mark.parametrize("objective", ["captioning", "contrastive"])
def test_a_forced_backend_holds_where_blocks_are_recomputed_too(
    tmp_path: Path, params: PretrainParams, objective: str
) -> None:
    chosen = params.model_copy(update={"objective": objective, "checkpoint_activations": True})
    free = fused_in_a_step(tmp_path / "free", chosen)
    depth = params.model.depth
    assert free["forward"] >= 2 * depth  # of the encoder alone, each block twice
    assert not fused_in_a_step(tmp_path / "forced", chosen, "math")


def test_a_forced_backend_holds_for_what_other_stages_compute() -> None:
    heads = torch.rand(1, 2, 16, 8)
    machine = Machine(device="cpu")
    for attention, fused in (("auto", 1), ("math", 0)):
        computer = open_computer(machine, ComputingParams(attention=attention))
        with _Attention() as seen, computer.inference():
            functional.scaled_dot_product_attention(heads, heads, heads)
        assert seen.seen["forward"] == fused
    with pytest.raises(ConfigError, match=r"computing\.attention is cudnn"):
        open_computer(machine, ComputingParams(attention="cudnn"))


def test_left_to_torch_its_own_order_is_as_it_was() -> None:
    before = torch._C._get_sdp_priority_order()
    with attention_by("auto"):
        assert torch._C._get_sdp_priority_order() == before
        assert torch.backends.cuda.math_sdp_enabled()
        assert torch.backends.cuda.flash_sdp_enabled()
    with attention_by("math"):
        assert not torch.backends.cuda.flash_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()


def test_a_backend_without_an_exact_kernel_is_refused_where_bits_shall_be_equal() -> None:
    """Torch would end with "No available kernel" at the first attention."""
    gpu = torch.device("cuda", 0)
    make_deterministic(threads=1, exact=True)
    with pytest.raises(ConfigError, match=r"cudnn.*any order(.|\n)*deterministic to false"):
        check_attention("cudnn", gpu)
    for backend in ("auto", "flash", "efficient", "math"):
        check_attention(backend, gpu)
    make_deterministic(threads=1, exact=False)
    check_attention("cudnn", gpu)


@pytest.mark.parametrize("objective", list(OBJECTIVES))
def test_a_gpus_flash_is_refused_by_those_who_mask(
    tmp_path: Path, params: PretrainParams, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[object] = []
    exact = functional.scaled_dot_product_attention

    def noted(*heads: torch.Tensor, **how: object) -> torch.Tensor:
        given.append(how.get("attn_mask"))
        return exact(*heads, **how)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", noted)
    trainer = real_step.trainer(
        tmp_path, params.model_copy(update={"objective": objective}), length=6
    )
    (micro,) = trainer.steps(0, 1)
    trainer.gradients(micro, 0)
    masks = trainer.model.masks
    assert any(one is not None for one in given) == masks
    check_attention("flash", CPU, masked=masks)
    if masks:
        with pytest.raises(ConfigError, match=r"flash, which has no masks(.|\n)*efficient"):
            check_attention("flash", torch.device("cuda"), masked=masks)


def test_evaluations_can_be_had_by_any_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "choose_device", lambda machine: torch.device("cuda", 0))
    for backend, exact in (("cudnn", False), ("efficient", True), ("auto", True)):
        open_computer(Machine(), ComputingParams(attention=backend))
        assert torch.are_deterministic_algorithms_enabled() is exact


def test_a_seed_touches_the_computers_own_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[torch.device] = []

    @contextlib.contextmanager
    def fork(*, devices: list[torch.device]) -> Iterator[None]:
        kept.extend(devices)
        yield

    monkeypatch.setattr(torch.random, "fork_rng", fork)
    for where in ("cuda:3", "cpu"):
        with Computer(torch.device(where)).seeded(5):
            assert torch.initial_seed() == 5
    assert kept == [torch.device("cuda:3")]


def test_a_backend_of_gpus_is_refused_on_a_cpu() -> None:
    for backend in ("auto", "flash", "math"):
        check_attention(backend, CPU)
    for backend in ("cudnn", "efficient"):
        with pytest.raises(ConfigError, match=f"attention is {backend}.*\n.*auto, flash, math"):
            check_attention(backend, CPU)


def losses(folder: Path, params: PretrainParams, steps: int) -> list[float]:
    trainer = real_step.trainer(folder, params, length=6)
    recorder = Recorder(folder / "record.jsonl", stage="pretrain", quiet=True)
    for micro in trainer.steps(0, steps):
        trainer.take_step(micro, recorder)
    found = [one.loss for one in trainer.progress.history]
    recorder.close()
    return found


def test_residuals_in_bf16_learn_as_those_in_float32(
    tmp_path: Path, params: PretrainParams
) -> None:
    """In a GPU's precision, computed here: the losses of the steps stay together."""
    changes = {"objective": "coca", "epochs": 12, "augment": False, "residuals": "bfloat16"}
    narrow = params.model_copy(update=changes)
    plain = narrow.model_copy(update={"residuals": "float32"})
    assert losses(tmp_path / "a", narrow, 3) == losses(tmp_path / "b", plain, 3)  # a CPU's
    with as_on_a_gpu():
        found = torch.tensor(losses(tmp_path / "c", narrow, 12))
        expected = torch.tensor(losses(tmp_path / "d", plain, 12))
    assert not torch.equal(found, expected)
    assert expected[-1] < 0.95 * expected[0]
    assert ((found - expected).abs() / expected).max() < 0.01
