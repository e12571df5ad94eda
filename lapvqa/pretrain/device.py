"""Where and how torch computes."""

from __future__ import annotations

import contextlib
import os

import torch

from lapvqa.config import Machine
from lapvqa.errors import ConfigError


def choose_device(machine: Machine) -> torch.device:
    """Return the device of local.yaml; ``auto`` is a GPU if there is one.

    Raises ConfigError for a device that is not here.
    """
    if machine.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(machine.device)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"local.yaml: device is {machine.device!r}; torch cannot use it here",
            hint="set device: auto, cpu or cuda",
        ) from error
    return device


def make_deterministic(*, threads: int) -> None:
    """Let equal input give equal bits with so many CPU threads; another number rounds otherwise."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its start
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(threads)


def autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return bf16 autocast on a GPU; on a CPU, where bf16 is slow, nothing."""
    if device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()
