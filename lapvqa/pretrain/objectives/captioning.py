"""Captioning: token cross-entropy of the report, given the image and the words before."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lapvqa.networks.losses import head_loss
from lapvqa.params import ModelParams
from lapvqa.pretrain.distributed import synchronise_on_last
from lapvqa.pretrain.flops import block_flops
from lapvqa.pretrain.inputs import Inputs
from lapvqa.pretrain.model import CaptioningModel
from lapvqa.pretrain.objectives.objective import BatchResult, Objective, Search


class Captioning(Objective):
    """Token cross-entropy."""

    hides_words = True

    def wrapped(self, log_count: Tensor) -> nn.Module:
        """Return a module that gives the summed loss, so that no logits leave it."""
        return _CaptionLoss(self.model, log_count)

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

    @staticmethod
    def text_flops(
        sizes: ModelParams, *, length: float, memory: int, targets: float, vocabulary: int
    ) -> float:
        """Return those of the decoder, its cross-attention and its head."""
        width = sizes.decoder_width
        per_layer = (
            block_flops(length, width)
            + 4 * length * width**2  # queries and output of cross-attention
            + 4 * memory * width**2  # its keys and values
            + 4 * length * memory * width
        )
        head = 2 * targets * width * vocabulary
        return 2 * memory * sizes.width * width + sizes.decoder_depth * per_layer + head

    def _sum(self, inputs: Inputs) -> Tensor:
        summed: Tensor = self._call(
            inputs.images, inputs.written_tokens, inputs.places, inputs.targets, inputs.keep
        )
        return summed


class Writing(nn.Module):
    """What training calls of a model that writes, and what samples are written by."""

    log_count: Tensor

    def __init__(self, model: CaptioningModel, log_count: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("log_count", log_count, persistent=False)

    def write(self, images: Tensor, search: Search) -> list[list[int]]:
        """Return what ``search`` finds for images [B, 1, S, S]."""
        return search(self.model.decoder, self.model.vision_encoder(images))


class _CaptionLoss(Writing):
    """Maps images and tokens to the summed loss, in one call."""

    def forward(
        self, images: Tensor, tokens: Tensor, places: Tensor, targets: Tensor, keep: Tensor | None
    ) -> Tensor:
        """Return the summed cross-entropy of ``targets`` [P] at ``places`` [P]."""
        hidden = self.model.hidden_states(images, tokens, keep)
        return caption_loss(self.model, hidden, self.log_count, places, targets)


def caption_loss(
    model: CaptioningModel, hidden: Tensor, log_count: Tensor, places: Tensor, targets: Tensor
) -> Tensor:
    """Return the summed cross-entropy of ``targets`` [P] at ``places`` [P] of states [B, T, D]."""
    # Padding is dropped before the head, which costs a product with the whole vocabulary.
    states = hidden.flatten(0, 1).index_select(0, places)
    return head_loss(states, model.decoder.token_embed.weight, log_count, targets)
