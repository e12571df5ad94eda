"""Several processes as one: who they are, what they share, and whole tensors from their parts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from lapvqa.errors import ConfigError
from lapvqa.machine import Strategy


@dataclass(frozen=True)
class World:
    """One of ``size`` processes that train together; ``local_rank`` counts within its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def mean(self, value: Tensor) -> float:
        """Return the mean over the processes of a number."""
        value = value.detach().float().clone()
        if self.size > 1:
            dist.all_reduce(value)
        return value.item() / self.size

    def gather(self, value: Any) -> list[Any]:
        """Return every process's value, in the order of ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def require_same(self, what: str, value: Any) -> None:
        """Raise ConfigError if ``what`` is not the same in every process."""
        found = self.gather(value)
        if any(one != found[0] for one in found):
            listed = ", ".join(f"{one} in process {rank}" for rank, one in enumerate(found))
            raise ConfigError(
                f"expected the same {what} in all processes, found {listed}",
                hint="every node must see this project folder with the same code and data; "
                "see docs/training.md",
            )


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """Join the processes that torchrun started; alone, without its variables.

    On GPUs ``device`` becomes the current one; without an index it is that of the local rank.
    After an error the process is to end without waiting for the others: they may be waiting for
    it in turn, and torchrun ends them.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield World()
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    if device.type == "cuda":
        device = torch.device("cuda", local_rank if device.index is None else device.index)
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=device)
    else:
        dist.init_process_group("gloo")
    yield World(dist.get_rank(), dist.get_world_size(), local_rank)
    dist.destroy_process_group()


def lost_another(error: RuntimeError) -> bool:
    """Tell whether an error says that another process is gone, and nothing of this one."""
    return isinstance(error, dist.DistError) or "gloo/transport" in str(error)


def spread(task: nn.Module, world: World, strategy: Strategy, device: torch.device) -> nn.Module:
    """Return ``task`` as a module whose backward pass averages gradients over the processes.

    ``ddp`` keeps a whole copy each; ``fsdp`` (FSDP2) shards parameters block by block, for models
    that do not fit.
    """
    if world.size == 1:
        return task
    if strategy == "ddp":
        return DistributedDataParallel(
            task,
            device_ids=[device] if device.type == "cuda" else None,
            forward_sync_buffers=False,  # they are constants
        )
    # Autocast chooses the precision; sharding must not choose another.
    policy = MixedPrecisionPolicy(cast_forward_inputs=False)
    mesh = init_device_mesh(device.type, (world.size,))
    for module in task.modules():
        if isinstance(module, nn.ModuleList):
            for block in module:
                fully_shard(block, mesh=mesh, mp_policy=policy)
    scalars = {one for one in task.parameters() if one.ndim == 0}  # cannot be sharded
    fully_shard(task, mesh=mesh, mp_policy=policy, ignored_params=scalars)
    return task


@contextlib.contextmanager
def gathered(task: nn.Module) -> Iterator[None]:
    """Hold whole parameters, for calls that are not the forward pass that FSDP watches.

    Every process must enter.
    """
    sharded = [module for module in task.modules() if isinstance(module, FSDPModule)]
    for module in sharded:
        module.unshard()
    try:
        yield
    finally:
        for module in sharded:
            module.reshard()


def average_scalars(task: nn.Module, world: World) -> None:
    """Average the gradients that FSDP leaves alone: those of parameters without dimensions."""
    for parameter in task.parameters():
        if parameter.ndim == 0 and parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= world.size


@contextlib.contextmanager
def only_last_synchronises(task: nn.Module, *, last: bool) -> Iterator[None]:
    """Keep gradients local but for the last of several backward passes of a step."""
    if isinstance(task, DistributedDataParallel) and not last:
        with task.no_sync():
            yield
    else:
        # FSDP2 reduces in every pass and adds up what it reduced. To reduce once it would have to
        # keep whole gradients between the passes, for models too large for that.
        yield


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor with all its parts; every process must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def assign(target: Tensor, value: Tensor) -> None:
    """Copy a whole tensor into one that may be sharded."""
    with torch.no_grad():
        target.copy_(parts_like(value, target))


def parts_like(value: Tensor, target: Tensor) -> Tensor:
    """Return ``value`` on the device, and in the parts, of ``target``."""
    value = value.to(target.device)
    if isinstance(target, DTensor):
        # Every process has the whole value: each takes its part, and none is sent.
        return distribute_tensor(value, target.device_mesh, target.placements, src_data_rank=None)
    return value
