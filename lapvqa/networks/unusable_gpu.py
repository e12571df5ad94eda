"""A GPU of this machine that torch cannot use: said with both versions and the way out."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

from lapvqa.errors import ConfigError
from lapvqa.runtime import has_gpu

_NEEDS_DRIVER = {13: 580, 12: 525, 11: 450}
"""CUDA's major version -> the first driver that runs it (CUDA's release notes, minor versions)."""
_DRIVER = re.compile(r"Kernel Module\b.*?\s(\d{3,}(?:\.\d+)+)\s")
_HIDDEN = ("", "-1", "NoDevFiles")
"""Values of CUDA_VISIBLE_DEVICES by which somebody wants no GPU."""


def refuse_unusable_gpu(root: Path = Path("/")) -> None:
    """Raise ConfigError if there is an NVIDIA GPU below ``root``, of which torch sees none.

    Its device file and its driver's version tell; not where CUDA_VISIBLE_DEVICES hides all GPUs.
    """
    if not has_gpu(root) or os.environ.get("CUDA_VISIBLE_DEVICES") in _HIDDEN:
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
