"""Train a head: AdamW, warm-up and cosine, the best epoch by validation.

A pure function of data, parameters and seed on one machine: the order of an epoch comes from a
counter-based generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from lapvqa.errors import TrainingError
from lapvqa.networks.device import Computer
from lapvqa.params import RecipeParams

_ORDER_STREAM = 5
"""Of the generators that the seed opens; others are lapvqa.images's."""


@dataclass(frozen=True)
class Fitted:
    """The outcome of a training: the epoch that was kept (from 1), its score, the score of each.

    A higher score is better, one that is not finite is none: its epoch is never kept. Without
    validation samples ``score`` is None and the last epoch kept.
    """

    epoch: int
    score: float | None
    scores: tuple[float, ...]
    steps: int

    def describe(self, name: str) -> dict[str, float | int | None]:
        """Return it for a protocol, under the name of the system."""
        score = None if self.score is None else round(self.score, 6)
        return {
            f"epoch_{name}": self.epoch,
            f"validation_score_{name}": score,
            f"steps_{name}": self.steps,
        }


def fit(
    head: nn.Module,
    loss: Callable[[Sequence[int]], Tensor],
    count: int,
    *,
    recipe: RecipeParams,
    score: Callable[[], float] | None,
    computer: Computer,
    encoder: nn.Module | None = None,
    expect: Callable[[Sequence[int]], None] = lambda numbers: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Fitted:
    """Train ``head`` in place, and ``encoder`` with it if given; keep the best epoch's weights.

    ``loss`` maps numbers of samples, 0 <= number < ``count``, to a scalar; ``expect`` is told those
    of the next step while one is taken; ``score`` judges the head, in eval mode, after each epoch.
    Both modules end in eval mode. Raises TrainingError for a loss that is not finite, or if the
    score of no epoch is.
    """
    modules = nn.ModuleList([head] if encoder is None else [head, encoder])
    optimizer = _optimizer(head, encoder, recipe)
    epochs, batches = recipe.epochs, math.ceil(count / recipe.batch_size)
    steps = epochs * batches
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _share(step, steps, round(recipe.warmup_share * steps))
    )
    scores: list[float] = []
    kept = -1
    best: dict[str, Tensor] = {}
    with computer.seeded(recipe.seed):  # dropout
        for epoch in range(epochs):
            modules.train()
            order = _batches(count, recipe, epoch)
            for number, samples in enumerate(order):
                if number + 1 < len(order):
                    expect(order[number + 1])
                optimizer.zero_grad(set_to_none=True)
                value = computer.learn(partial(loss, samples))
                _step(value, modules, optimizer, recipe, epoch)
                schedule.step()
                progress(epoch * batches + number + 1, steps)
            modules.eval()
            if score is not None:
                with computer.inference():
                    scores.append(score())
                if math.isfinite(scores[-1]) and (kept < 0 or scores[-1] >= scores[kept]):
                    kept = epoch
                    best = {key: value.clone() for key, value in modules.state_dict().items()}
    if score is None:
        return Fitted(epochs, None, (), steps)
    if kept < 0:
        raise TrainingError(
            f"head: expected a finite validation score after one of {epochs} epochs, found "
            f"{scores[-1]} after the last",
            hint="look at the validation samples and their features; a head that computes no "
            "finite values learns from a lower recipe.lr of the task in params.yaml",
        )
    modules.load_state_dict(best)
    return Fitted(kept + 1, scores[kept], tuple(scores), steps)


def _optimizer(
    head: nn.Module, encoder: nn.Module | None, recipe: RecipeParams
) -> torch.optim.AdamW:
    groups = [{"params": list(head.parameters()), "lr": recipe.lr}]
    if encoder is not None:
        groups.append({"params": list(encoder.parameters()), "lr": recipe.encoder_lr})
    return torch.optim.AdamW(groups, lr=recipe.lr, weight_decay=recipe.weight_decay)


def _share(step: int, steps: int, warmup: int) -> float:
    """Return the share of the highest learning rate: linear up, then half a cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _batches(count: int, recipe: RecipeParams, epoch: int) -> list[list[int]]:
    stream = np.random.Philox(key=recipe.seed, counter=[0, 0, epoch, _ORDER_STREAM])
    order = np.random.Generator(stream).permutation(count).tolist()
    size = recipe.batch_size
    return [order[start : start + size] for start in range(0, count, size)]


def _step(
    loss: Tensor,
    modules: nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: RecipeParams,
    epoch: int,
) -> None:
    if not bool(loss.isfinite()):
        raise TrainingError(
            f"head, epoch {epoch + 1}: expected a finite loss, found {float(loss)}",
            hint="lower recipe.lr of the task in params.yaml, or look at its features",
        )
    clip_grad_norm_(modules.parameters(), recipe.grad_clip)
    optimizer.step()
