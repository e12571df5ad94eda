"""The captioning loss: cross-entropy of each next token, without all logits at once.

The head maps P positions to V tokens; as float32 that is 4 P V bytes, up to 13 GB for a batch of
256 reports. Above a limit it is taken in chunks whose gradient is computed in the forward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

LOGIT_BYTES = 512 * 2**20
"""float32 logits that may exist at once; a chunk below it is one ordinary product."""


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
