"""A training step on a device of its own that has no memory: what the host would wait for there.

    python fake_gpu.py FOLDER OBJECTIVE...

prints as JSON, by objective, the copies between host and device of a step and of a validation
batch, as (from, to, elements, whether nobody waits), and what of the step's inputs was not
page-locked. Whatever else needs a value of the device is an error of the fake tensors; so is an
operation on tensors of both. A process of its own, because a device is registered for good.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from unittest import mock

import real_step
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from lapvqa.machine import Training
from lapvqa.params import ModelParams, PretrainParams
from lapvqa.pretrain import trainer
from lapvqa.pretrain.inputs import Prepared
from lapvqa.pretrain.objectives import objective
from lapvqa.recorder import Recorder

NAME = "fakegpu"
SIZES = ModelParams(
    image_size=32, patch_size=8, width=32, depth=2, heads=2, pooled_grid=2, decoder_width=32,
    decoder_depth=1, decoder_heads=2, text_width=32, text_depth=1, text_heads=2, embed_dim=16,
)  # fmt: skip
PARAMS = PretrainParams(
    model=SIZES, epochs=1, batch_size=4, lr=1e-3, accumulate=2, flip=True, keep_patches=0.5,
    parallel_share=0.5,
)  # fmt: skip
_aten = torch.ops.aten


class Copies(TorchDispatchMode):
    """Keeps the copies from one device to another."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str, int, bool]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if func in (_aten._to_copy.default, _aten.copy_.default):
            source = args[func is _aten.copy_.default]
            if source.device != made.device:
                free = bool((kwargs or {}).get("non_blocking") or args[2:])
                self.seen.append((source.device.type, made.device.type, source.numel(), free))
        return made


def on(device: torch.device, module: nn.Module) -> nn.Module:
    """Replace all tensors by such without memory, on the device."""
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    made = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
                    learns = tensor.requires_grad
                    is_buffer = tensors is part._buffers
                    tensors[name] = made if is_buffer else nn.Parameter(made, learns)
    return module


@contextmanager
def building(mode: FakeTensorMode, locked: set[int]) -> Iterator[None]:
    """Have a trainer built whose model is on the device, and note what is page-locked."""
    guard = trainer.Guard

    def place(module: nn.Module, *given: Any) -> nn.Module:
        with mode:
            return on(given[-1], module)

    def judge(*given: Any) -> Any:
        with mode:
            return guard(*given)

    def lock(tensor: Tensor) -> Tensor:
        locked.add(tensor.data_ptr())
        return tensor

    with (
        mock.patch.object(objective, "distribute", place),
        mock.patch.object(trainer, "Guard", judge),
        mock.patch.object(trainer, "Meter"),  # multiplies, to see how fast the device is
        mock.patch.object(Tensor, "pin_memory", lock),
    ):
        yield


def copies(mode: FakeTensorMode, act: Callable[[], Any]) -> list[tuple[str, str, int, bool]]:
    with mode, Copies() as found:
        act()
    return found.seen


def observe(folder: Path, name: str, device: torch.device) -> dict[str, Any]:
    mode, locked = FakeTensorMode(allow_non_fake_inputs=True), set[int]()
    params = PARAMS.model_copy(update={"objective": name})
    corpus = real_step.corpus(folder, count=4, length=6)
    recorder = Recorder(folder / "record.jsonl", stage="pretrain", quiet=True)

    def without_memory(micro: Prepared) -> Prepared:
        held = {one.name: getattr(micro, one.name) for one in fields(micro)}
        return Prepared(**{key: one if one is None else mode.from_tensor(one)
                           for key, one in held.items()})  # fmt: skip

    with building(mode, locked):
        one = trainer.Trainer(
            params, corpus, device, training=Training(loader_threads=0), attention="math"
        )
        one.preparer.on_gpu = True
        (step,) = one.steps(0, 1)
        unlocked = {
            held.name for micro in step for held in fields(micro)
            if (value := getattr(micro, held.name)) is not None
            and value.data_ptr() not in locked
        }  # fmt: skip
        micro = [without_memory(part) for part in step]
        whole = replace(micro[0], keep=None, hidden=None)
        return {
            "unlocked": sorted(unlocked),
            "step": copies(mode, lambda: one.take_step(micro, recorder)),
            "validation": copies(
                mode, lambda: one.objective.measure(one.preparer.to_inputs(whole))
            ),
        }


def main() -> None:
    _setup_privateuseone_for_python_backend(NAME)
    device, folder = torch.device(NAME, 0), Path(sys.argv[1])
    found = {name: observe(folder / name, name, device) for name in sys.argv[2:]}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
