"""The device that torch computes on, its precision, and determinism."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from lapvqa.errors import ConfigError
from lapvqa.machine import Machine

# Fastest first at head size 64 (FlashAttention-3's paper, figures 5 and 6); torch takes the first
# that supports the call.
_ATTENTION = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


def choose_device(machine: Machine, local_rank: int = 0) -> torch.device:
    """Return the device of local.yaml; ``auto`` is a GPU if there is one.

    Of several processes on a machine each takes the GPU of its ``local_rank``.
    Raises ConfigError for a device that this machine lacks.
    """
    if machine.device == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return (
            torch.device("cuda", local_rank)
            if machine.training.processes > 1
            else torch.device("cuda")
        )
    if machine.training.processes > 1 and ":" in machine.device:
        raise ConfigError(
            f"local.yaml: device is {machine.device!r}, but each of training.processes "
            f"({machine.training.processes}) needs a GPU of its own",
            hint="set device: cuda; CUDA_VISIBLE_DEVICES says which ones there are",
        )
    try:
        device = torch.device(machine.device)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"local.yaml: device is {machine.device!r}; torch cannot use it here",
            hint="set device: auto, cpu or cuda",
        ) from error
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


@contextlib.contextmanager
def mixed_precision(device: torch.device) -> Iterator[None]:
    """Use bf16 autocast and the fastest attention on a GPU; neither on a CPU: bf16 crawls there."""
    if device.type != "cuda":
        yield
        return
    with torch.autocast("cuda", dtype=torch.bfloat16), sdpa_kernel(_ATTENTION, set_priority=True):
        yield
