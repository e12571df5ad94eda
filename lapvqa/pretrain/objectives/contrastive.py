"""Contrastive learning: which report belongs to which image, by InfoNCE or pairwise sigmoid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lapvqa.networks.losses import info_nce, pairwise_sigmoid
from lapvqa.params import ModelParams
from lapvqa.pretrain.distributed import World, synchronise_on_last
from lapvqa.pretrain.flops import block_flops
from lapvqa.pretrain.inputs import Inputs
from lapvqa.pretrain.objectives.objective import BatchResult, Objective

RECALL_AT = (1, 5, 10)


class Contrastive(Objective):
    """InfoNCE over the embeddings of all ranks and micro-batches.

    A loss of the same embeddings is a subclass with a ``loss`` of its own.
    """

    all_pairs_at_once = True

    def backward(self, micro: Sequence[Inputs], num_targets: int) -> Tensor:
        """Add the gradients of a step; see ``Objective``.

        Negatives come from the whole step, so the loss needs all embeddings before any gradient
        is known. They are computed first without gradients, and once more with, when those of the
        embeddings are known (GradCache, arXiv:2101.06983); a single micro-batch is computed once.
        """
        whole = len(micro) == 1
        once = [self._forward(micro[0], num_targets)] if whole else []
        with torch.no_grad():
            embedded = [pair for pair, _ in once] or [self._embed(inputs) for inputs in micro]
        leaves = [torch.cat(side).detach().requires_grad_() for side in zip(*embedded, strict=True)]
        groups = torch.cat([inputs.groups for inputs in micro])
        learned = [one for one in self.model.parameters() if one.ndim == 0 and one.requires_grad]
        losses = [self.loss(leaves[0], leaves[1], groups, self.world)]
        (*grads,) = torch.autograd.grad(losses[0], [*leaves, *learned])
        rows = zip(*(torch.split(grad, len(micro[0].groups)) for grad in grads[:2]), strict=True)
        for number, (inputs, row_grads) in enumerate(zip(micro, rows, strict=True), start=1):
            last = number == len(micro)
            with synchronise_on_last(self.module, last=last):
                pair, own = once[0] if whole else self._forward(inputs, num_targets)
                values, gradients = [*pair, *own], [*row_grads, *map(torch.ones_like, own)]
                if last:
                    values += learned
                    gradients += grads[2:]
                torch.autograd.backward(values, gradients)
            losses += own
        return torch.stack([loss.detach() for loss in losses]).sum()

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
            for column in zip(*(result.values[:3] for result in measured), strict=True)
        )
        size, total = self.params.batch_size, 0.0
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

    @staticmethod
    def text_flops(
        sizes: ModelParams, *, length: float, memory: int, targets: float, vocabulary: int
    ) -> float:
        """Return those of the text encoder and of both projections."""
        del memory, targets, vocabulary
        projections = 2 * (sizes.width + sizes.text_width) * sizes.embed_dim
        return sizes.text_depth * block_flops(length, sizes.text_width) + projections

    def _embed(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        images, reports = self._call(inputs.images, inputs.tokens, inputs.valid, inputs.keep)
        return images, reports

    def _forward(
        self, inputs: Inputs, num_targets: int
    ) -> tuple[tuple[Tensor, Tensor], list[Tensor]]:
        """Return a micro-batch's embeddings, and its losses that need no other's: here none."""
        del num_targets
        return self._embed(inputs), []


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


def recall(scores: Tensor, groups: Tensor) -> dict[int, float]:
    """Return, for each k, the share of rows of ``scores`` [n, n] with a hit among the k highest.

    A hit is a column of the row's own group.
    """
    order = scores.argsort(dim=1, descending=True, stable=True)
    hits = (groups[order] == groups.unsqueeze(1)).cumsum(dim=1) > 0
    return {k: hits[:, min(k, hits.shape[1]) - 1].float().mean().item() for k in RECALL_AT}
