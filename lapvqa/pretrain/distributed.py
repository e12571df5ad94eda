"""Several processes that train as one: their ranks, what they exchange, and sharded tensors."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from lapvqa.errors import ConfigError
from lapvqa.machine import Strategy
from lapvqa.networks import device as computing

_LIMIT = timedelta(hours=6)
"""How long a process waits for the others. Not for deaths, which torchrun notices in seconds, but
longer than it takes one of them to read all shards for their digests, or to write a large state."""


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

    @property
    def is_first_of_node(self) -> bool:
        """Whether this process looks at its machine's files for all of them."""
        return self.local_rank == 0

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a number over the processes: float64, still on its device."""
        value = value.detach().float().clone()
        if self.size > 1:
            dist.all_reduce(value)
        return value.double() / self.size

    def gather(self, value: Any) -> list[Any]:
        """Return every process's value, in the order of ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def gather_rows(self, rows: Tensor) -> Tensor:
        """Return the rows [b, ...] of all processes, [B, ...] in their order, with gradient."""
        if self.size == 1:
            return rows
        gathered: Tensor = _GatherRows.apply(rows, self)  # type: ignore[no-untyped-call]
        return gathered

    def require_same(self, name: str, value: Any) -> None:
        """Raise ConfigError if the value called ``name`` is not the same in every process."""
        values = self.gather(value)
        if any(other != values[0] for other in values):
            listed = ", ".join(f"{other} in process {rank}" for rank, other in enumerate(values))
            raise ConfigError(
                f"expected the same {name} in all processes, found {listed}",
                hint="every node must see this project folder with the same code and data; "
                "see docs/training.md",
            )


class _GatherRows(torch.autograd.Function):
    """all_gather whose backward pass sums the gradients that all processes have for a row."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, world: World) -> Tensor:
        ctx.own = slice(world.rank * len(rows), (world.rank + 1) * len(rows))
        parts = [torch.empty_like(rows) for _ in range(world.size)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.own], None


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[World]:
    """Join the processes that torchrun started; without torchrun's variables, a World of one.

    On GPUs ``device`` becomes the current one; without an index it is that of the local rank.
    After an error the group is left as it is: to wait for the others could be to wait for ever,
    since they may be waiting for this process, and torchrun ends them.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield World()
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    if device.type == "cuda":
        device = torch.device("cuda", local_rank if device.index is None else device.index)
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=device, timeout=_LIMIT)
    else:
        dist.init_process_group("gloo", timeout=_LIMIT)
    yield World(dist.get_rank(), dist.get_world_size(), local_rank)
    dist.destroy_process_group()


def is_lost_peer(error: RuntimeError) -> bool:
    """Tell whether an error says no more than that another process is gone."""
    return isinstance(error, dist.DistError) or "gloo/transport" in str(error)


def distribute(
    module: nn.Module, world: World, strategy: Strategy, device: torch.device
) -> nn.Module:
    """Return ``module`` on ``device``, so wrapped that its backward pass averages gradients.

    With ``ddp`` each process keeps a full copy; ``fsdp`` (FSDP2) shards parameters block by block,
    for models that do not fit: its weights are those of the main process, and no device ever holds
    more than one of its tensors whole.
    """
    if world.size == 1:
        return _placed(module, device)
    if strategy == "ddp":
        return DistributedDataParallel(
            _placed(module, device),
            device_ids=[device] if device.type == "cuda" else None,
            forward_sync_buffers=False,  # they are constants
        )
    whole = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    module.to("meta")
    mesh = init_device_mesh(device.type, (world.size,))
    for part in module.modules():
        if isinstance(part, nn.ModuleList):
            for block in part:
                fully_shard(block, mesh=mesh, mp_policy=precision_of_blocks(device))
                for method in _FORWARD_OF_BLOCKS:
                    if hasattr(block, method):
                        register_fsdp_forward_method(block, method)
    scalars = {parameter for parameter in module.parameters() if parameter.ndim == 0}
    # Scalars cannot be sharded: ``average_scalars`` sees to their gradients. All else outside the
    # blocks is added to the residual stream or makes logits: autocast chooses its precision.
    policy = MixedPrecisionPolicy(cast_forward_inputs=False)
    fully_shard(module, mesh=mesh, mp_policy=policy, ignored_params=scalars)
    if hasattr(module, "write"):
        register_fsdp_forward_method(module, "write")
    module.to_empty(device=device)
    for name, target in [*module.named_parameters(), *module.named_buffers()]:
        # Of a tensor alone the main process sends each its part.
        value = whole[name].detach().to(device) if world.is_main else None
        _scatter(target, torch.empty(target.shape, device=device) if value is None else value)
    return module


def _placed(module: nn.Module, device: torch.device) -> nn.Module:
    """Move what is not there yet: tensors without memory, of which plans are made, cannot move."""
    tensors = [*module.parameters(), *module.buffers()]
    elsewhere = any(tensor.device != device for tensor in tensors)
    return module.to(device) if elsewhere else module


_FORWARD_OF_BLOCKS = ("extend", "remember")
"""Methods of blocks, besides ``forward``, for which FSDP gathers their parameters."""


def precision_of_blocks(device: torch.device) -> MixedPrecisionPolicy:
    """Return what FSDP gathers the parameters of blocks in: bf16 on a GPU.

    Half of what is sent, and no second copy beside each rank's float32 (autocast keeps one of every
    weight that it casts). Gradients are added up in float32.
    """
    return MixedPrecisionPolicy(
        param_dtype=computing.precision_on(device), reduce_dtype=torch.float32,
        cast_forward_inputs=False,
    )  # fmt: skip


@torch.no_grad()
def _scatter(target: Tensor, value: Tensor) -> None:
    """Give ``target``, sharded or not, the value of the main process."""
    if isinstance(target, DTensor):
        target.copy_(distribute_tensor(value, target.device_mesh, target.placements))
    else:
        dist.broadcast(value, 0)
        target.copy_(value)


def average_scalars(module: nn.Module, world: World) -> None:
    """Average the gradients that FSDP does not: those of parameters without dimensions."""
    for parameter in module.parameters():
        if parameter.ndim == 0 and parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= world.size


@contextlib.contextmanager
def synchronise_on_last(module: nn.Module, *, last: bool) -> Iterator[None]:
    """Keep gradients local in all but the ``last`` backward pass of a step."""
    if isinstance(module, DistributedDataParallel) and not last:
        with module.no_sync():
            yield
    else:
        # FSDP2 reduces in every pass and adds up what it reduced. To reduce once, it would have to
        # keep full gradients between the passes, and it is for models too large for that.
        yield


def full_tensor(tensor: Tensor) -> Tensor:
    """Return a tensor with all its shards; every process must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def assign_full(target: Tensor, value: Tensor) -> None:
    """Copy a full tensor into one that may be sharded."""
    with torch.no_grad():
        target.copy_(shard_like(value, target))


def shard_like(value: Tensor, target: Tensor) -> Tensor:
    """Return ``value`` on the device of ``target``, and sharded as it is."""
    value = value.to(target.device)
    if isinstance(target, DTensor):
        # Every process has the full value: each takes its shard, and none is sent.
        return distribute_tensor(value, target.device_mesh, target.placements, src_data_rank=None)
    return value
