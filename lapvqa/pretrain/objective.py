"""The objectives: each has its loss of a step, and its measures of validation.

The trainer knows neither. A step's global batch may be cut over ranks and micro-batches; loss and
gradient are those of the batch in one piece, to rounding.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lapvqa.machine import Strategy
from lapvqa.networks.device import mixed_precision
from lapvqa.networks.losses import head_loss, info_nce, pairwise_sigmoid
from lapvqa.params import PretrainParams
from lapvqa.pretrain.distributed import World, distribute, synchronise_on_last
from lapvqa.pretrain.inputs import Inputs
from lapvqa.pretrain.model import CaptioningModel, ContrastiveModel

RECALL_AT = (1, 5, 10)


@dataclass(frozen=True)
class BatchResult:
    """Values of one validation batch, on the CPU; ``size`` is their weight."""

    size: int
    values: tuple[Tensor, ...]


class Objective(ABC):
    """A model, the module that training calls, and its loss."""

    module: nn.Module
    """Takes inputs to what the loss needs; wrapped, so that gradients are averaged."""
    all_pairs_at_once: ClassVar[bool] = False
    """A rank holds its pairs' logits with those of all ranks; ``memory`` counts them."""

    @abstractmethod
    def backward(self, micro: Sequence[Inputs], num_targets: int) -> Tensor:
        """Add the gradients of a step; return this rank's part of its loss.

        ``num_targets`` counts the tokens of the whole step, over all ranks.
        """

    @abstractmethod
    def measure(self, inputs: Inputs) -> BatchResult:
        """Return the values of one validation batch."""

    @abstractmethod
    def summarise(self, measured: Sequence[BatchResult]) -> dict[str, float]:
        """Return ``val_loss`` and further metrics from all validation batches, in order."""


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
        self.module = distribute(_CaptionLoss(model, log_count), world, strategy, device)

    def backward(self, micro: Sequence[Inputs], num_targets: int) -> Tensor:
        """Add the gradients of a step; see ``Objective``."""
        # Gradients are averaged over the ranks; here their sum is wanted.
        weight = self.world.size / num_targets
        parts = []
        for number, inputs in enumerate(micro, start=1):
            with synchronise_on_last(self.module, last=number == len(micro)):
                loss = self._sum(inputs) * weight
                loss.backward()  # type: ignore[no-untyped-call]
            parts.append(loss.detach())
        return torch.stack(parts).sum()

    def measure(self, inputs: Inputs) -> BatchResult:
        """Return the batch's summed loss."""
        return BatchResult(len(inputs.targets), (self._sum(inputs).cpu(),))

    def summarise(self, measured: Sequence[BatchResult]) -> dict[str, float]:
        """Return the loss per token and its exponential."""
        total = sum(result.values[0].item() for result in measured)
        loss = total / sum(result.size for result in measured)
        return {"val_loss": loss, "val_perplexity": math.exp(min(loss, 700.0))}

    def _sum(self, inputs: Inputs) -> Tensor:
        with mixed_precision(self.device):
            summed: Tensor = self.module(
                inputs.images, inputs.tokens, inputs.places, inputs.targets, inputs.keep
            )
        return summed


class _CaptionLoss(nn.Module):
    """Maps images and tokens to the summed loss, in one call, so that no logits leave it."""

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


class Contrastive(Objective):
    """InfoNCE over the embeddings of all ranks and micro-batches.

    A loss of the same embeddings is a subclass with a ``loss`` of its own.
    """

    all_pairs_at_once = True

    def __init__(
        self,
        model: ContrastiveModel,
        world: World,
        strategy: Strategy,
        device: torch.device,
        *,
        batch_size: int | None = None,
    ) -> None:
        """``batch_size``: pairs that validation compares at a time; None: all."""
        self.model, self.batch_size = model, batch_size
        self.world, self.device = world, device
        self.module = distribute(model, world, strategy, device)

    def backward(self, micro: Sequence[Inputs], num_targets: int) -> Tensor:
        """Add the gradients of a step; see ``Objective``.

        Negatives come from the whole step, so the loss needs all embeddings before any gradient
        is known. They are computed first without gradients, and once more with, when those of the
        embeddings are known (GradCache, arXiv:2101.06983); a single micro-batch is computed once.
        """
        if len(micro) == 1:
            embedded = [self._embed(micro[0])]
        else:
            with torch.no_grad():
                embedded = [self._embed(inputs) for inputs in micro]
        leaves = [torch.cat(side).detach().requires_grad_() for side in zip(*embedded, strict=True)]
        groups = torch.cat([inputs.groups for inputs in micro])
        scalars = (self.model.logit_scale, self.model.logit_bias)
        learned = [scalar for scalar in scalars if scalar.requires_grad]
        loss = self.loss(leaves[0], leaves[1], groups, self.world)
        (*grads,) = torch.autograd.grad(loss, [*leaves, *learned])
        rows = zip(*(torch.split(grad, len(micro[0].groups)) for grad in grads[:2]), strict=True)
        for number, (inputs, row_grads) in enumerate(zip(micro, rows, strict=True), start=1):
            last = number == len(micro)
            with synchronise_on_last(self.module, last=last):
                again = embedded[0] if len(micro) == 1 else self._embed(inputs)
                values, gradients = list(again), list(row_grads)
                if last:
                    values += learned
                    gradients += grads[2:]
                torch.autograd.backward(values, gradients)
        return loss.detach()

    def measure(self, inputs: Inputs) -> BatchResult:
        """Return the batch's embeddings and groups."""
        images, reports = self._embed(inputs)
        return BatchResult(len(images), (images.cpu(), reports.cpu(), inputs.groups.cpu()))

    def summarise(self, measured: Sequence[BatchResult]) -> dict[str, float]:
        """Return the mean loss, and how often the partner is among the first k.

        The loss depends on how many pairs are compared at a time: always as many as a step has,
        whatever pieces the step is computed in. A report of the same wording is as good as the
        partner.
        """
        images, reports, groups = (
            torch.cat(column)
            for column in zip(*(result.values for result in measured), strict=True)
        )
        size, total = self.batch_size or len(images), 0.0
        for start in range(0, len(images), size):
            rows = slice(start, start + size)
            loss = self.loss(images[rows], reports[rows], groups[rows], World())
            total += loss.item() * len(images[rows])
        recalls = {
            f"val_{name}_recall_at_{k}": value
            for name, scores in (
                ("image_to_report", images @ reports.T),
                ("report_to_image", reports @ images.T),
            )
            for k, value in recall(scores, groups).items()
        }
        return {"val_loss": total / len(images), **recalls}

    def loss(self, images: Tensor, reports: Tensor, groups: Tensor, world: World) -> Tensor:
        """Return this rank's part of the loss of embeddings [b, E]; see ``networks.losses``."""
        scale = self.model.logit_scale.to(images.device)
        return info_nce(images, reports, groups, scale, rank=world.rank, gather=world.gather_rows)

    def _embed(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        with mixed_precision(self.device):
            images, reports = self.module(inputs.images, inputs.tokens, inputs.valid, inputs.keep)
        return images, reports


class PairwiseSigmoid(Contrastive):
    """The pairwise sigmoid over the same embeddings."""

    all_pairs_at_once = False

    def loss(self, images: Tensor, reports: Tensor, groups: Tensor, world: World) -> Tensor:
        """Return this rank's part of the loss."""
        scale = self.model.logit_scale.to(images.device)
        bias = self.model.logit_bias.to(images.device)
        return pairwise_sigmoid(
            images, reports, groups, scale, bias, rank=world.rank, gather=world.gather_rows
        )


LOSSES: dict[str, type[Captioning] | type[Contrastive]] = {
    "captioning": Captioning,
    "contrastive": Contrastive,
    "sigmoid": PairwiseSigmoid,
}
"""Objective -> its class; ``model.OBJECTIVES`` has the model of each."""


def build_objective(
    model: CaptioningModel | ContrastiveModel,
    params: PretrainParams,
    log_count: Tensor,
    world: World,
    strategy: Strategy,
    device: torch.device,
) -> Objective:
    """Build the objective that ``params`` names around its model.

    ``log_count`` float32 [V]: of the cut vocabulary, for those that write.
    """
    kind = LOSSES[params.objective]
    if isinstance(model, CaptioningModel):
        assert issubclass(kind, Captioning)
        return kind(model, log_count, world, strategy, device)
    assert issubclass(kind, Contrastive)
    return kind(model, world, strategy, device, batch_size=params.batch_size)


def recall(scores: Tensor, groups: Tensor) -> dict[int, float]:
    """Return, for each k, the share of rows of ``scores`` [n, n] with a hit among the k highest.

    A hit is a column of the row's own group.
    """
    order = scores.argsort(dim=1, descending=True, stable=True)
    hits = (groups[order] == groups.unsqueeze(1)).cumsum(dim=1) > 0
    return {k: hits[:, min(k, hits.shape[1]) - 1].float().mean().item() for k in RECALL_AT}
