"""AdamW, its learning-rate schedule, and its state under the names of the parameters."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from lapvqa.params import PretrainParams
from lapvqa.pretrain.checkpoint import snapshot
from lapvqa.pretrain.distributed import full_tensor, shard_like

_BETAS = (0.9, 0.98)
_NOT_DECAYED = ("cls_token", "pos_embed", "token_embed.weight")


def build_optimizer(model: nn.Module, params: PretrainParams) -> torch.optim.AdamW:
    """Build fused AdamW; matrices decay, norms, biases and embeddings do not."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_free = parameter.ndim < 2 or name.endswith(_NOT_DECAYED)
        (free if is_free else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": params.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=params.lr, betas=_BETAS, fused=True)


def learning_rate(step: int, total_steps: int, params: PretrainParams) -> float:
    """Return the rate of a step (from 0): linear warm-up, then a cosine down to ``min_lr``."""
    warmup = min(params.warmup_steps, total_steps)
    if step < warmup:
        return params.lr * (step + 1) / warmup
    progress = (step - warmup) / max(total_steps - warmup - 1, 1)
    return params.min_lr + (params.lr - params.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def step_unless(optimizer: torch.optim.AdamW, fault: Tensor) -> None:
    """Take a step of fused AdamW, which is none where ``fault`` [] is 1 and not 0.

    Nobody waits for the number: the kernels look at it, as they do for a gradient scaler.
    """
    optimizer.found_inf = fault  # type: ignore[attr-defined]
    optimizer.step()


def optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, *, keep: bool = True
) -> dict[str, dict[str, Tensor]]:
    """Return the optimizer's state of each parameter by name: full tensors, on the CPU.

    Every process must call this; those that do not ``keep`` it get none.
    """
    states: dict[str, dict[str, Tensor]] = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            full = full_tensor(value)
            if keep:
                states.setdefault(name, {})[key] = snapshot(full)
    return states


def load_optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, dict[str, Any]]
) -> None:
    """Load what ``optimizer_state`` returned, however the parameters are sharded."""
    for name, parameter in model.named_parameters():
        if name in state:
            optimizer.state[parameter] = {
                # The step count is a scalar; all else has the parameter's shape.
                key: shard_like(value, parameter) if value.ndim else value.to(parameter.device)
                for key, value in state[name].items()
            }
