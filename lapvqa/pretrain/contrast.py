"""The losses of image-report pairs: InfoNCE and the pairwise sigmoid, over all ranks.

Shapes: b pairs of this rank, B = W * b of all W ranks, E dimensions. Each function returns this
rank's part; the mean of the parts over the ranks is the loss of one process with all B pairs,
and the mean of the gradients is its gradient.

Two studies may have the same report, word for word, and then neither is a negative of the other:
``groups`` int64 [b] is equal where reports are, and such pairs are left out.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from lapvqa.pretrain.distributed import World

_ALONE = World()
_MAX_LOG_SCALE = math.log(100)


def info_nce(
    images: Tensor, reports: Tensor, groups: Tensor, log_scale: Tensor, *, world: World = _ALONE
) -> Tensor:
    """Return the symmetric InfoNCE of embeddings [b, E] (CLIP, arXiv:2103.00020, figure 3).

    ``log_scale``: logarithm of the inverse temperature, held at 100 or below as CLIP does.
    """
    scale = log_scale.clamp(max=_MAX_LOG_SCALE).exp()
    all_images, all_reports = gather_rows(images, world), gather_rows(reports, world)
    own = _own_rows(len(images), images.device, world)
    alike = _alike(groups, gather_constant(groups, world), own)
    halves = []
    for here, others in ((images, all_reports), (reports, all_images)):
        logits = (scale * here @ others.T).masked_fill(alike, -torch.inf)
        halves.append(F.cross_entropy(logits, own))
    return (halves[0] + halves[1]) / 2


def pairwise_sigmoid(
    images: Tensor,
    reports: Tensor,
    groups: Tensor,
    log_scale: Tensor,
    bias: Tensor,
    *,
    world: World = _ALONE,
) -> Tensor:
    """Return the sigmoid loss of embeddings [b, E] (SigLIP, arXiv:2303.15343, algorithm 1).

    Each pair is a decision of its own, so the reports are taken rank by rank: b x b logits at a
    time, never b x B.
    """
    scale = log_scale.clamp(max=_MAX_LOG_SCALE).exp()
    own = _own_rows(len(images), images.device, world)
    all_groups = gather_constant(groups, world)
    total = images.new_zeros(())
    for start, others in enumerate(torch.split(gather_rows(reports, world), len(images))):
        columns = torch.arange(len(others), device=images.device) + start * len(images)
        same = own.unsqueeze(1) == columns
        logits = scale * images @ others.T + bias
        signed = torch.where(same, logits, -logits)
        counted = same | (groups.unsqueeze(1) != all_groups[columns])
        total = total - (F.logsigmoid(signed) * counted).sum()
    return total / len(images)


def gather_rows(rows: Tensor, world: World) -> Tensor:
    """Return the rows [b, E] of all ranks, [B, E] in their order, with gradient."""
    if world.size == 1:
        return rows
    gathered: Tensor = _GatherRows.apply(rows, world)  # type: ignore[no-untyped-call]
    return gathered


def gather_constant(rows: Tensor, world: World) -> Tensor:
    """Return the rows [b, ...] of all ranks, without gradient."""
    if world.size == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(world.size)]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


class _GatherRows(torch.autograd.Function):
    """all_gather whose backward pass adds what every rank found for these rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, world: World) -> Tensor:
        ctx.own = slice(world.rank * len(rows), (world.rank + 1) * len(rows))
        return gather_constant(rows, world)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.own], None


def _own_rows(count: int, device: torch.device, world: World) -> Tensor:
    """Return where this rank's rows stand among all: int64 [b]."""
    return torch.arange(world.rank * count, (world.rank + 1) * count, device=device)


def _alike(groups: Tensor, all_groups: Tensor, own: Tensor) -> Tensor:
    """Return bool [b, B]: another pair with the same report."""
    columns = torch.arange(len(all_groups), device=groups.device)
    return (groups.unsqueeze(1) == all_groups) & (own.unsqueeze(1) != columns)
