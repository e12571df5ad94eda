"""What differs between the objectives: the loss of a step, and what validation measures.

The trainer knows neither. A step's global batch may be cut over ranks and micro-batches; the loss
and the gradient are those of the whole batch in one piece, to rounding.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lapvqa.machine import Strategy
from lapvqa.networks.device import computing
from lapvqa.networks.losses import head_loss
from lapvqa.pretrain.contrast import info_nce, pairwise_sigmoid
from lapvqa.pretrain.distributed import World, only_last_synchronises, spread
from lapvqa.pretrain.inputs import Inputs
from lapvqa.pretrain.model import CaptioningModel, ContrastiveModel

RECALL_AT = (1, 5, 10)


@dataclass(frozen=True)
class Measured:
    """What one validation batch gives: values on the CPU."""

    size: int
    values: tuple[Tensor, ...]


class Objective(ABC):
    """A model, the module that the processes share, and its loss."""

    task: nn.Module
    """What is called in training: wrapped, so that gradients are averaged over processes."""

    @abstractmethod
    def backward(self, micro: Sequence[Inputs], num_targets: int) -> Tensor:
        """Add the gradients of a step; return this rank's part of its loss.

        ``num_targets`` counts the tokens of the whole step, over all ranks.
        """

    @abstractmethod
    def measure(self, inputs: Inputs) -> Measured:
        """Return what one validation batch gives."""

    @abstractmethod
    def summarise(self, measured: Sequence[Measured]) -> dict[str, float]:
        """Return ``val_loss`` and what else is known from all validation batches, in order."""


class Captioning(Objective):
    """Token cross-entropy."""

    def __init__(
        self,
        model: CaptioningModel,
        log_count: Tensor,
        world: World,
        strategy: Strategy,
        device: torch.device,
    ) -> None:
        self.world, self.device = world, device
        self.plain = _CaptionTask(model, log_count)
        self.task = spread(self.plain, world, strategy, device)

    def backward(self, micro: Sequence[Inputs], num_targets: int) -> Tensor:
        """Add the gradients of a step; see ``Objective``."""
        # The mean over ranks, which the processes take of gradients, is to be a sum here.
        weight = self.world.size / num_targets
        parts = []
        for number, inputs in enumerate(micro, start=1):
            with only_last_synchronises(self.task, last=number == len(micro)):
                loss = self._sum(inputs) * weight
                loss.backward()  # type: ignore[no-untyped-call]
            parts.append(loss.detach())
        return torch.stack(parts).sum()

    def measure(self, inputs: Inputs) -> Measured:
        """Return the batch's summed loss."""
        return Measured(len(inputs.targets), (self._sum(inputs).cpu(),))

    def summarise(self, measured: Sequence[Measured]) -> dict[str, float]:
        """Return the loss per token and its exponential."""
        total = sum(one.values[0].item() for one in measured)
        loss = total / sum(one.size for one in measured)
        return {"val_loss": loss, "val_perplexity": math.exp(min(loss, 700.0))}

    def _sum(self, inputs: Inputs) -> Tensor:
        with computing(self.device):
            summed: Tensor = self.task(
                inputs.images, inputs.tokens, inputs.places, inputs.targets, inputs.keep
            )
        return summed


class _CaptionTask(nn.Module):
    """Images and tokens to the summed loss, in one call, so that no logits leave it."""

    log_count: Tensor

    def __init__(self, model: CaptioningModel, log_count: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("log_count", log_count, persistent=False)

    def forward(
        self, images: Tensor, tokens: Tensor, places: Tensor, targets: Tensor, keep: Tensor | None
    ) -> Tensor:
        """Return the summed cross-entropy of ``targets`` [P] at ``places`` [P]."""
        # Padding is dropped before the head, which costs a product with the whole vocabulary.
        hidden = self.model.hidden_states(images, tokens, keep).flatten(0, 1)
        table = self.model.decoder.token_embed.weight
        return head_loss(hidden.index_select(0, places), table, self.log_count, targets)


class Pairs(Objective):
    """InfoNCE or the pairwise sigmoid over the embeddings of all ranks and micro-batches."""

    def __init__(
        self,
        model: ContrastiveModel,
        objective: str,
        world: World,
        strategy: Strategy,
        device: torch.device,
        *,
        batch_size: int | None = None,
    ) -> None:
        """``batch_size``: pairs that validation compares at a time; None: all."""
        self.model, self.objective, self.batch_size = model, objective, batch_size
        self.world, self.device = world, device
        self.task = spread(model, world, strategy, device)

    def backward(self, micro: Sequence[Inputs], num_targets: int) -> Tensor:
        """Add the gradients of a step; see ``Objective``.

        Negatives come from the whole step, so the loss needs all embeddings before any gradient
        is known. They are made first without, then, knowing their gradients, once more with
        (GradCache, arXiv:2101.06983); one micro-batch needs no second time.
        """
        if len(micro) == 1:
            made = [self._embed(micro[0])]
        else:
            with torch.no_grad():
                made = [self._embed(inputs) for inputs in micro]
        leaves = [torch.cat(side).detach().requires_grad_() for side in zip(*made, strict=True)]
        groups = torch.cat([inputs.groups for inputs in micro])
        learned = [
            one for one in (self.model.logit_scale, self.model.logit_bias) if one.requires_grad
        ]
        loss = self._loss(leaves[0], leaves[1], groups, self.world)
        (*grads,) = torch.autograd.grad(loss, [*leaves, *learned])
        rows = zip(*(torch.split(grad, len(micro[0].groups)) for grad in grads[:2]), strict=True)
        for number, (inputs, found) in enumerate(zip(micro, rows, strict=True), start=1):
            last = number == len(micro)
            with only_last_synchronises(self.task, last=last):
                again = made[0] if len(micro) == 1 else self._embed(inputs)
                values, gradients = list(again), list(found)
                if last:
                    values += learned
                    gradients += grads[2:]
                torch.autograd.backward(values, gradients)
        return loss.detach()

    def measure(self, inputs: Inputs) -> Measured:
        """Return the batch's embeddings and groups."""
        images, reports = self._embed(inputs)
        return Measured(len(images), (images.cpu(), reports.cpu(), inputs.groups.cpu()))

    def summarise(self, measured: Sequence[Measured]) -> dict[str, float]:
        """Return the mean loss, and how often the partner is among the first k.

        The loss is that of as many pairs at a time as a step has: it depends on their number,
        which must not be that of the pieces a step is computed in. A report that says the same,
        word for word, is as good as the partner.
        """
        images, reports, groups = (
            torch.cat(column) for column in zip(*(one.values for one in measured), strict=True)
        )
        size, total = self.batch_size or len(images), 0.0
        for start in range(0, len(images), size):
            rows = slice(start, start + size)
            loss = self._loss(images[rows], reports[rows], groups[rows], World())
            total += loss.item() * len(images[rows])
        recalls = {
            f"val_{name}_recall_at_{k}": value
            for name, order in (
                ("image_to_report", images @ reports.T),
                ("report_to_image", reports @ images.T),
            )
            for k, value in recall(order, groups).items()
        }
        return {"val_loss": total / len(images), **recalls}

    def _embed(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        with computing(self.device):
            images, reports = self.task(inputs.images, inputs.tokens, inputs.valid, inputs.keep)
        return images, reports

    def _loss(self, images: Tensor, reports: Tensor, groups: Tensor, world: World) -> Tensor:
        scale = self.model.logit_scale.to(images.device)
        bias = self.model.logit_bias.to(images.device)
        if self.objective == "contrastive":
            return info_nce(images, reports, groups, scale, world=world)
        return pairwise_sigmoid(images, reports, groups, scale, bias, world=world)


def recall(scores: Tensor, groups: Tensor) -> dict[int, float]:
    """Return, for each k, the share of rows of ``scores`` [n, n] with a hit among the k highest.

    A hit is a column of the row's own group.
    """
    order = scores.argsort(dim=1, descending=True, stable=True)
    hits = (groups[order] == groups.unsqueeze(1)).cumsum(dim=1) > 0
    return {k: hits[:, min(k, hits.shape[1]) - 1].float().mean().item() for k in RECALL_AT}
