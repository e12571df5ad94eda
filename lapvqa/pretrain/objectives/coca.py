"""CoCa: to write the report and to recognise it, in one pass (arXiv:2205.01917)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lapvqa.params import ModelParams
from lapvqa.pretrain.distributed import World
from lapvqa.pretrain.flops import block_flops
from lapvqa.pretrain.inputs import Inputs
from lapvqa.pretrain.model import CocaModel
from lapvqa.pretrain.objectives.captioning import Captioning, Writing, caption_loss
from lapvqa.pretrain.objectives.contrastive import Contrastive
from lapvqa.pretrain.objectives.objective import BatchResult


class Coca(Contrastive):
    """The weighted sum of InfoNCE and of the cross-entropy per token; 1 and 2 as published."""

    hides_words = True

    def wrapped(self, log_count: Tensor) -> nn.Module:
        """Return a module that gives embeddings and the summed caption loss."""
        return _CocaLoss(self.model, log_count)

    def measure(self, inputs: Inputs) -> BatchResult:
        """Return the batch's embeddings and groups, its caption loss and the tokens of that."""
        images, reports, summed = self._all(inputs)
        count = torch.tensor(len(inputs.targets))
        values = (images.cpu(), reports.cpu(), inputs.groups.cpu(), summed.cpu(), count)
        return BatchResult(len(images), values)

    def summarise(self, measured: Sequence[BatchResult]) -> dict[str, float]:
        """Return the weighted sum, each of its parts without its weight, and the recall."""
        pairs = super().summarise(measured)
        contrastive = pairs.pop("val_loss")
        caption = sum(one.values[3].item() for one in measured) / sum(
            int(one.values[4]) for one in measured
        )
        weights = self.params.coca
        return {
            "val_loss": contrastive + weights.caption * caption,
            "val_caption_loss": caption,
            "val_perplexity": math.exp(min(caption, 700.0)),
            "val_contrastive_loss": contrastive / weights.contrastive,
            **pairs,
        }

    def loss(self, images: Tensor, reports: Tensor, groups: Tensor, world: World) -> Tensor:
        """Return this rank's part of the weighted InfoNCE."""
        return self.params.coca.contrastive * super().loss(images, reports, groups, world)

    @staticmethod
    def text_flops(
        sizes: ModelParams, *, length: float, memory: int, targets: float, vocabulary: int
    ) -> float:
        """Return captioning's, and those of the layers of words and of both projections."""
        words = sizes.text_depth * block_flops(length + 1, sizes.decoder_width)
        projections = 2 * (sizes.width + sizes.decoder_width) * sizes.embed_dim
        written = Captioning.text_flops(
            sizes, length=length, memory=memory, targets=targets, vocabulary=vocabulary
        )
        return words + projections + written

    def _forward(
        self, inputs: Inputs, num_targets: int
    ) -> tuple[tuple[Tensor, Tensor], list[Tensor]]:
        images, reports, summed = self._all(inputs)
        # As in captioning: gradients are averaged over the ranks, their sum is wanted.
        weight = self.params.coca.caption * self.world.size / num_targets
        return (images, reports), [summed * weight]

    def _all(self, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        images, reports, summed = self._call(
            inputs.images, inputs.tokens, inputs.valid, inputs.keep,
            inputs.hidden, inputs.places, inputs.targets,
        )  # fmt: skip
        return images, reports, summed


class _CocaLoss(Writing):
    """Maps images and tokens to embeddings, and to the summed caption loss if asked for it."""

    model: CocaModel

    def forward(
        self,
        images: Tensor,
        tokens: Tensor,
        valid: Tensor,
        keep: Tensor | None,
        hidden: Tensor | None = None,
        places: Tensor | None = None,
        targets: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Return the embeddings [B, E] of both, and the loss of ``targets`` [P] at ``places``."""
        if places is None or targets is None:
            return self.model.embed_images(images, keep), self.model.embed_reports(tokens, valid)
        seen, read, states = self.model.both(images, tokens, valid, keep, hidden)
        return seen, read, caption_loss(self.model, states, self.log_count, places, targets)
