"""The device that torch computes on, its precision and attention, and determinism."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from lapvqa.errors import ConfigError
from lapvqa.machine import Machine
from lapvqa.params import Attention

_BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION, "math": SDPBackend.MATH,
}  # fmt: skip
_ON_CPU = ("auto", "flash", "math")

_NEEDS_DRIVER = {13: 580, 12: 525, 11: 450}
"""CUDA's major version -> the first driver that runs it (CUDA's release notes, minor versions)."""
_DRIVER = re.compile(r"Kernel Module\b.*?\s(\d{3,}(?:\.\d+)+)\s")
_HIDDEN = ("", "-1", "NoDevFiles")
"""Values of CUDA_VISIBLE_DEVICES by which somebody wants no GPU."""


def choose_device(machine: Machine, local_rank: int = 0) -> torch.device:
    """Return the device of local.yaml; ``auto`` is a GPU if there is one.

    Of several processes on a machine each takes the GPU of its ``local_rank``. Raises ConfigError
    for a device that this machine lacks, or for a GPU that torch cannot use: silently, a training
    of days would become one of months.
    """
    if machine.device == "auto":
        if not torch.cuda.is_available():
            refuse_unusable_gpu()
            return torch.device("cpu")
        return _own_gpu(torch.device("cuda"), machine, local_rank)
    if machine.training.processes > 1 and ":" in machine.device:
        raise ConfigError(
            f"local.yaml: device is {machine.device!r}, but each of training.processes "
            f"({machine.training.processes}) needs a GPU of its own",
            hint="set device: cuda; CUDA_VISIBLE_DEVICES says which ones there are",
        )
    try:
        device = _own_gpu(torch.device(machine.device), machine, local_rank)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        if machine.device.startswith("cuda") and not torch.cuda.is_available():
            refuse_unusable_gpu()
        raise ConfigError(
            f"local.yaml: device is {machine.device!r}; torch cannot use it here",
            hint="set device: auto, cpu or cuda",
        ) from error
    return device


def _own_gpu(device: torch.device, machine: Machine, local_rank: int) -> torch.device:
    """Return the GPU of one of several processes, where ``device`` names none of them."""
    if str(device) == "cuda" and machine.training.processes > 1:
        return torch.device("cuda", local_rank)
    return device


def make_deterministic(*, threads: int, exact: bool = True) -> None:
    """Make equal inputs give equal bits on ``threads`` CPU threads; another number differs.

    With ``exact`` false a GPU may use faster kernels, which sum in any order.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its start
    torch.use_deterministic_algorithms(exact)
    # Otherwise torch fills uninitialised memory; nothing here reads what it has not written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_num_threads(threads)


def refuse_unusable_gpu(root: Path = Path("/")) -> None:
    """Raise ConfigError if there is an NVIDIA GPU below ``root``, of which torch sees none.

    Its device file and its driver's version tell; not where CUDA_VISIBLE_DEVICES hides all GPUs.
    """
    there = any(root.glob("dev/nvidia[0-9]*"))
    if not there or os.environ.get("CUDA_VISIBLE_DEVICES") in _HIDDEN:
        return
    driver = _driver(root)
    built = torch.version.cuda
    raise ConfigError(
        "this machine has a GPU that torch cannot use: its driver is "
        f"{driver or 'of unknown version'}, torch {torch.__version__} is built for "
        + (f"CUDA {built}" if built else "CPUs alone"),
        hint=f"{_way_out(driver, built)}; or set device: cpu in local.yaml to do without the GPU",
    )


def _driver(root: Path) -> str | None:
    try:
        text = (root / "proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = _DRIVER.search(text)
    return found.group(1) if found else None


def _way_out(driver: str | None, built: str | None) -> str:
    if driver is None:
        return "load the GPU's driver (`nvidia-smi` says whether it runs), in a container too"
    number = int(driver.split(".")[0])
    runs = next((cuda for cuda, first in _NEEDS_DRIVER.items() if number >= first), None)
    install = f"install torch's build for CUDA {runs}, which this driver runs"
    if built is None:
        return install if runs else f"update the driver to {_NEEDS_DRIVER[12]} or newer"
    wanted = int(built.split(".")[0])
    if runs is not None and runs >= wanted:
        return "see what `nvidia-smi` says, and whether this user may open /dev/nvidia*"
    update = (
        f"update the driver to {_NEEDS_DRIVER.get(wanted, max(_NEEDS_DRIVER.values()))} or newer"
    )
    return f"{update}, or {install}" if runs else update


def check_attention(attention: Attention, device: torch.device) -> None:
    """Raise ConfigError for a backend that ``device`` lacks."""
    if device.type == "cpu" and attention not in _ON_CPU:
        raise ConfigError(
            f"pretrain.attention is {attention}, which computes on a GPU alone; this is a CPU",
            hint=f"set pretrain.attention to one of {', '.join(_ON_CPU)}",
        )


@contextlib.contextmanager
def attention_by(attention: Attention) -> Iterator[None]:
    """Compute attention by one backend; ``auto`` leaves it to torch.

    Torch's own order knows which backend is wrong for which lengths and versions; naming a list of
    backends overrides that. The backward pass belongs inside: a block that is recomputed there
    computes its attention again.
    """
    if attention == "auto":
        yield
        return
    with sdpa_kernel(_BACKENDS[attention]):
        yield


@contextlib.contextmanager
def mixed_precision(device: torch.device) -> Iterator[None]:
    """Use bf16 autocast on a GPU; not on a CPU: bf16 crawls there."""
    if device.type != "cuda":
        yield
        return
    with torch.autocast("cuda", dtype=torch.bfloat16):
        yield
