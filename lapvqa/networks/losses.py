"""The losses of pretraining: next-token cross-entropy, InfoNCE, and the pairwise sigmoid.

Captioning maps P positions to V tokens; as float32 that is 4 P V bytes, up to 13 GB for a batch
of 256 reports. Above a limit it is taken in chunks whose gradient is computed in the forward pass.

Pairs: b pairs of this rank, B = W * b of all W ranks, E dimensions. A function returns this rank's
part; the mean of the parts over the ranks is the loss of one process with all B pairs, and the
mean of the gradients is its gradient. Two studies may have the same report, word for word, and
then neither is a negative of the other: ``groups`` int64 [b] is equal where reports are, and such
pairs are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Gather = Callable[[Tensor], Tensor]
"""Maps the rows [b, ...] of this rank to those of all ranks [B, ...], in their order, so that
gradients flow back to where the rows came from."""

LOGIT_BYTES = 512 * 2**20
"""float32 logits that may exist at once; a chunk below it is one ordinary product."""

_MAX_LOG_SCALE = math.log(100)


def head_loss(
    hidden: Tensor, table: Tensor, log_count: Tensor, targets: Tensor, *, limit: int = LOGIT_BYTES
) -> Tensor:
    """Return the summed cross-entropy, in nats, of ``targets`` [P] at hidden states [P, D].

    ``table`` [V, D] is the head; row v stands for exp(``log_count``[v]) tokens (see
    ``vocabulary``), each of which has its share of the row's probability.
    """
    rows = max(1, limit // (4 * len(table)))
    if len(hidden) <= rows:
        loss = _dense(hidden, table, log_count, targets)
    elif torch.is_grad_enabled():
        loss = _Chunked.apply(hidden, table, log_count, targets, rows)  # type: ignore[no-untyped-call]
    else:
        chunks = zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)
        loss = torch.stack([_dense(h, table, log_count, t) for h, t in chunks]).sum()
    return loss + log_count[targets].sum()


def _dense(hidden: Tensor, table: Tensor, log_count: Tensor, targets: Tensor) -> Tensor:
    # Added in log_count's float32, also where autocast made the logits bfloat16.
    logits = F.linear(hidden, table) + log_count
    return F.cross_entropy(logits, targets, reduction="sum")


class _Chunked(torch.autograd.Function):
    """``_dense`` over chunks of rows; what it keeps for the backward pass is two gradients."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, table: Tensor, log_count: Tensor, targets: Tensor, rows: int
    ) -> Tensor:
        device = hidden.device.type
        amp = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if amp else hidden.dtype
        states, head = hidden.detach().to(dtype), table.detach().to(dtype)
        grad_states = torch.empty_like(states)
        grad_head = torch.zeros(table.shape, dtype=torch.float32, device=table.device)
        total = torch.zeros((), device=hidden.device)
        with torch.autocast(device, enabled=False):
            for start in range(0, len(states), rows):
                part = slice(start, start + rows)
                logits = (states[part] @ head.T).float() + log_count
                chosen = targets[part].unsqueeze(1)
                norm = logits.logsumexp(dim=1, keepdim=True)
                total += (norm - logits.gather(1, chosen)).sum()
                # d loss / d logits is the softmax, less one at the target; written over the logits.
                grad = logits.sub_(norm).exp_()
                grad.scatter_add_(1, chosen, -torch.ones_like(norm))
                grad = grad.to(dtype)
                grad_states[part] = grad @ head
                grad_head += (grad.T @ states[part]).float()
        ctx.save_for_backward(grad_states.to(hidden.dtype), grad_head.to(table.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_states, grad_head = ctx.saved_tensors
        return grad_states * grads[0], grad_head * grads[0], None, None, None


def _this_rank_alone(rows: Tensor) -> Tensor:
    return rows


def info_nce(
    images: Tensor,
    reports: Tensor,
    groups: Tensor,
    log_scale: Tensor,
    *,
    rank: int = 0,
    gather: Gather = _this_rank_alone,
) -> Tensor:
    """Return the symmetric InfoNCE of embeddings [b, E] (CLIP, arXiv:2103.00020, figure 3).

    ``log_scale``: logarithm of the inverse temperature, held at 100 or below as CLIP does.
    """
    scale = log_scale.clamp(max=_MAX_LOG_SCALE).exp()
    all_images, all_reports, all_groups = gather(images), gather(reports), gather(groups)
    own = _own_rows(images, rank)
    columns = torch.arange(len(all_groups), device=groups.device)
    same_report = (groups.unsqueeze(1) == all_groups) & (own.unsqueeze(1) != columns)
    halves = []
    for rows, others in ((images, all_reports), (reports, all_images)):
        logits = (scale * rows @ others.T).masked_fill(same_report, -torch.inf)
        halves.append(F.cross_entropy(logits, own))
    return (halves[0] + halves[1]) / 2


def pairwise_sigmoid(
    images: Tensor,
    reports: Tensor,
    groups: Tensor,
    log_scale: Tensor,
    bias: Tensor,
    *,
    rank: int = 0,
    gather: Gather = _this_rank_alone,
) -> Tensor:
    """Return the sigmoid loss of embeddings [b, E] (SigLIP, arXiv:2303.15343, algorithm 1).

    Each pair is a decision of its own, so the reports are taken rank by rank: b x b logits at a
    time, never b x B.
    """
    scale = log_scale.clamp(max=_MAX_LOG_SCALE).exp()
    own, all_groups = _own_rows(images, rank), gather(groups)
    total = images.new_zeros(())
    for start, others in enumerate(torch.split(gather(reports), len(images))):
        columns = torch.arange(len(others), device=images.device) + start * len(images)
        partner = own.unsqueeze(1) == columns
        logits = scale * images @ others.T + bias
        signed = torch.where(partner, logits, -logits)
        counted = partner | (groups.unsqueeze(1) != all_groups[columns])
        total = total - (F.logsigmoid(signed) * counted).sum()
    return total / len(images)


def _own_rows(rows: Tensor, rank: int) -> Tensor:
    """Return where this rank's rows [b, ...] stand among those of all ranks: int64 [b]."""
    return torch.arange(rank * len(rows), (rank + 1) * len(rows), device=rows.device)
