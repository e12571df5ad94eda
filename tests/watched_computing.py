"""A watch over what computes: which modules were called, in what precision, and by whom."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from lapvqa.networks import device


@contextlib.contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Compute on the CPU in the precision that a GPU gets."""
    kept = device.precision_on
    device.precision_on = lambda _: torch.bfloat16
    try:
        yield
    finally:
        device.precision_on = kept


@contextlib.contextmanager
def calls() -> Iterator[dict[str, set[bool]]]:
    """Collect, by module class, whether autocast was on in its calls; see ``as_on_a_gpu``."""
    seen: dict[str, set[bool]] = {}

    def note(module: nn.Module, _arguments: object) -> None:
        by_autocast = torch.is_autocast_enabled("cpu")
        seen.setdefault(type(module).__name__, set()).add(by_autocast)

    handle = register_module_forward_pre_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


@contextlib.contextmanager
def nothing_outside() -> Iterator[None]:
    """Fail where a module is called beside a ``Computer`` and training, in whatever thread."""
    inside, enter = threading.local(), device.mixed_precision

    @contextlib.contextmanager
    def noted(where: torch.device) -> Iterator[None]:
        inside.depth = getattr(inside, "depth", 0) + 1
        try:
            with enter(where):
                yield
        finally:
            inside.depth -= 1

    def check(module: nn.Module, _arguments: object) -> None:
        name = type(module).__name__
        assert getattr(inside, "depth", 0), f"{name} is computed outside of a Computer"

    device.mixed_precision = noted
    handle = register_module_forward_pre_hook(check)
    try:
        yield
    finally:
        handle.remove()
        device.mixed_precision = enter
