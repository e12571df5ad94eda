"""The published models: built without arguments at the published sizes, or from parameters."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lapvqa.networks.decoder import CaptionDecoder
from lapvqa.networks.encoder import (
    INIT_STD,
    NORM_EPS,
    Embedding,
    LayerNorm,
    Linear,
    ResidualStream,
    VisionEncoder,
)
from lapvqa.networks.text_encoder import TextEncoder
from lapvqa.params import ModelParams, PretrainParams

__all__ = [
    "MODELS",
    "CaptionDecoder",
    "CaptioningModel",
    "CocaModel",
    "ContrastiveModel",
    "PretrainedModel",
    "TextEncoder",
    "VisionEncoder",
    "build_encoder",
    "initial_model",
]


def build_encoder(params: ModelParams) -> VisionEncoder:
    """Build a vision encoder of the given sizes."""
    return VisionEncoder(
        image_size=params.image_size,
        patch_size=params.patch_size,
        width=params.width,
        depth=params.depth,
        heads=params.heads,
        pooled_grid=params.pooled_grid,
    )


class PretrainedModel(nn.Module, ABC):
    """An encoder and what it learns from: what the rest of the house asks a model."""

    vision_encoder: VisionEncoder
    writes: ClassVar[bool] = False
    """It writes reports: it has a ``decoder``."""
    reads: ClassVar[bool] = False
    """It maps whole reports, begin and end included, to vectors."""
    masks: ClassVar[bool] = False
    """Attention leaves padding out by a mask, which not every kernel can."""

    @property
    @abstractmethod
    def token_table(self) -> tuple[str, Embedding]:
        """The name of the vocabulary's table in the state dict, and the table."""

    @property
    @abstractmethod
    def text_side(self) -> nn.Module:
        """What computes the words."""

    @abstractmethod
    def phrase(self, token_ids: Tensor) -> Tensor:
        """Map the token ids [T] of a phrase, a whole report if it ``reads``, to a vector."""

    def outputs(self) -> dict[str, int]:
        """Return the sizes, for the card, of what it gives besides the encoder's tokens."""
        return {}

    def compute_by(self, params: PretrainParams, precision: torch.dtype) -> None:
        """Set what blocks keep and what they add in, where products are of ``precision``."""
        self.vision_encoder.checkpointing = params.checkpoint_activations
        narrow = params.residuals == "bfloat16" and precision == torch.bfloat16
        for part in self.modules():
            if isinstance(part, ResidualStream):
                part.residuals = precision if narrow else None


class CaptioningModel(PretrainedModel):
    """ViT encoder and causal decoder that writes the report.

    Without arguments: ViT-L/14 at 384 px and 6 layers of width 512 over GPT-2's 50257 tokens.
    ``text_depth``: the decoder's layers that see no image yet, before those that do.
    """

    writes = True

    def __init__(self, params: ModelParams | None = None, *, text_depth: int = 0) -> None:
        super().__init__()
        params = params or ModelParams()
        self.vision_encoder = build_encoder(params)
        self.decoder = CaptionDecoder(
            visual_width=params.width,
            width=params.decoder_width,
            depth=params.decoder_depth,
            heads=params.decoder_heads,
            text_depth=text_depth,
        )

    @property
    def token_table(self) -> tuple[str, Embedding]:
        """The decoder's table, which is its head too."""
        return "decoder.token_embed.weight", self.decoder.token_embed

    @property
    def text_side(self) -> nn.Module:
        """The decoder."""
        return self.decoder

    def phrase(self, token_ids: Tensor) -> Tensor:
        """Map token ids [T] to the mean of their rows of the table."""
        rows: Tensor = self.decoder.token_embed(token_ids)
        return rows.mean(dim=0)

    def forward(self, images: Tensor, token_ids: Tensor) -> Tensor:
        """Map images [B, 1 or 3, S, S] and token ids [B, T] to logits [B, T, 50257]."""
        return self.decoder.logits(self.hidden_states(images, token_ids))

    def hidden_states(
        self, images: Tensor, token_ids: Tensor, keep: Tensor | None = None
    ) -> Tensor:
        """Map the same to the hidden states [B, T, D] before the head.

        Training takes these, to apply the head only at positions that have a target. ``keep``:
        the patches that are encoded, as in ``VisionEncoder.forward``.
        """
        hidden: Tensor = self.decoder(token_ids, self.vision_encoder(images, keep))
        return hidden


class ContrastiveModel(PretrainedModel):
    """ViT encoder and bidirectional text encoder with one embedding space.

    Without arguments: ViT-L/14 at 384 px, text 6 layers of width 512, a space of 512 dimensions.
    One class for InfoNCE (CLIP, arXiv:2103.00020) and the pairwise sigmoid loss (SigLIP,
    arXiv:2303.15343): ``logit_scale`` is the logarithm of the inverse temperature, ``logit_bias``
    is used by the sigmoid alone.
    """

    reads = True
    masks = True

    def __init__(self, params: ModelParams | None = None) -> None:
        super().__init__()
        params = params or ModelParams()
        self.vision_encoder = build_encoder(params)
        self.text_encoder = TextEncoder(
            width=params.text_width, depth=params.text_depth, heads=params.text_heads
        )
        self.image_proj = _projection(params.width, params.embed_dim)
        self.text_proj = _projection(params.text_width, params.embed_dim)
        self.logit_scale = nn.Parameter(torch.tensor(_CLIP_SCALE))
        self.logit_bias = nn.Parameter(torch.tensor(0.0))

    @property
    def token_table(self) -> tuple[str, Embedding]:
        """The text encoder's table."""
        return "text_encoder.token_embed.weight", self.text_encoder.token_embed

    @property
    def text_side(self) -> nn.Module:
        """The text encoder."""
        return self.text_encoder

    def phrase(self, token_ids: Tensor) -> Tensor:
        """Map the token ids [T] of a report to what the text encoder makes of it."""
        vector: Tensor = self.text_encoder(token_ids[None], torch.ones_like(token_ids[None]).bool())
        return vector[0]

    def outputs(self) -> dict[str, int]:
        """Return the dimensions of the space that images and reports share."""
        return {"embedding": self.image_proj.out_features}

    def forward(
        self, images: Tensor, token_ids: Tensor, valid: Tensor, keep: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the embeddings of images and of reports, each [B, E] of length 1."""
        return self.embed_images(images, keep), self.embed_reports(token_ids, valid)

    def embed_images(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """Map images [B, 1 or 3, S, S] to embeddings [B, E] of length 1, float32."""
        tokens = self.vision_encoder(images, keep)
        return F.normalize(self.image_proj(tokens.mean(dim=1)).float(), dim=-1)

    def embed_reports(self, token_ids: Tensor, valid: Tensor) -> Tensor:
        """Map token ids [B, T], ``valid`` bool [B, T] where no padding, to [B, E] as above."""
        return F.normalize(self.text_proj(self.text_encoder(token_ids, valid)).float(), dim=-1)


class CocaModel(CaptioningModel):
    """A decoder that reads the report before it sees the image (CoCa, arXiv:2205.01917).

    Its first ``text_depth`` layers see words alone. A learned token behind the last word reads all
    of them: its state is the report's vector, in one space with the mean of the image's tokens.
    The layers after them write the report, as those of ``CaptioningModel`` do. Both are computed
    in one pass. The published one pools the image by attention, for either use anew; here the
    encoder's own tokens serve, as in the two models that this one joins.
    """

    reads = True

    def __init__(self, params: ModelParams | None = None) -> None:
        params = params or ModelParams()
        super().__init__(params, text_depth=params.text_depth)
        width = params.decoder_width
        self.cls_token = nn.Parameter(nn.init.normal_(torch.empty(width), std=INIT_STD))
        self.text_norm = LayerNorm(width, eps=NORM_EPS)
        self.image_proj = _projection(params.width, params.embed_dim)
        self.text_proj = _projection(width, params.embed_dim)
        self.logit_scale = nn.Parameter(torch.tensor(_CLIP_SCALE))

    def phrase(self, token_ids: Tensor) -> Tensor:
        """Map the token ids [T] of a report to what the layers of words make of it."""
        report = token_ids[None, :-1]  # the last one is a target only
        _, summary = self.read(report, torch.ones_like(report).bool())
        vector: Tensor = self.text_norm(summary)[0]
        return vector

    def outputs(self) -> dict[str, int]:
        """Return the dimensions of the space that images and reports share."""
        return {"embedding": self.image_proj.out_features}

    def both(
        self,
        images: Tensor,
        token_ids: Tensor,
        valid: Tensor,
        keep: Tensor | None = None,
        hidden: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return embeddings of images and reports, [B, E] each, and hidden states [B, T, D].

        ``hidden`` bool [B]: reports that are written without a sight of their own words, although
        they are read; see ``inputs.draw_hidden``.
        """
        visual = self.vision_encoder(images, keep)
        words, summary = self.read(token_ids, valid, hidden)
        return (
            self._embedding(self.image_proj(visual.mean(dim=1))),
            self._embedding(self.text_proj(self.text_norm(summary))),
            self.decoder.write(words, visual),
        )

    def embed_images(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """Map images [B, 1 or 3, S, S] to embeddings [B, E] of length 1, float32."""
        return self._embedding(self.image_proj(self.vision_encoder(images, keep).mean(dim=1)))

    def embed_reports(self, token_ids: Tensor, valid: Tensor) -> Tensor:
        """Map token ids [B, T], ``valid`` bool [B, T] where no padding, to [B, E] as above."""
        return self._embedding(self.text_proj(self.text_norm(self.read(token_ids, valid)[1])))

    def read(
        self, token_ids: Tensor, valid: Tensor, hidden: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return states [B, T, D] of the words, and [B, D] of the token behind the last one.

        No mask is needed: what follows a word has no influence on it, padding neither. A hidden
        report shows its begin token at every place; these see no image, so that all such reports
        have equal states: those of one more row.
        """
        rows, length = token_ids.shape
        ends = valid.sum(dim=1)
        if hidden is not None:
            token_ids = torch.cat([token_ids, token_ids[:1, :1].expand(1, length)])
            ends = torch.cat([ends, ends.new_full((1,), length)])
        # The last of all places is padding wherever there are so many (``padded_length``).
        x = F.pad(self.decoder.token_embed(token_ids), (0, 0, 0, 1))[:, : self.decoder.max_length]
        behind = torch.arange(x.shape[1], device=x.device) == ends.unsqueeze(1)
        x = torch.where(behind.unsqueeze(2), self.cls_token.to(x.dtype), x)
        states = self.decoder.read(x)
        words = states[:rows, :length]
        if hidden is not None:
            words = torch.where(hidden[:, None, None], states[rows:, :length], words)
        summary = (states[:rows] * behind[:rows].unsqueeze(2)).sum(dim=1)
        return words, summary

    @staticmethod
    def _embedding(projected: Tensor) -> Tensor:
        return F.normalize(projected.float(), dim=-1)


_CLIP_SCALE = math.log(1 / 0.07)
# SigLIP's start, t = 10 and b = -10: at first every pair counts as a negative, as nearly all are.
_SIGMOID_SCALE, _SIGMOID_BIAS = math.log(10), -10.0


def _projection(inputs: int, outputs: int) -> Linear:
    layer = Linear(inputs, outputs, bias=False)
    nn.init.xavier_uniform_(layer.weight)
    return layer


def infonce_model(params: ModelParams) -> ContrastiveModel:
    """Build the model of InfoNCE, which trains no bias."""
    model = ContrastiveModel(params)
    model.logit_bias.requires_grad_(False)
    return model


def sigmoid_model(params: ModelParams) -> ContrastiveModel:
    """Build the model of the sigmoid loss, at its start of scale and bias."""
    model = ContrastiveModel(params)
    nn.init.constant_(model.logit_scale, _SIGMOID_SCALE)
    nn.init.constant_(model.logit_bias, _SIGMOID_BIAS)
    return model


MODELS: dict[str, Callable[[ModelParams], PretrainedModel]] = {
    "captioning": CaptioningModel,
    "contrastive": infonce_model,
    "sigmoid": sigmoid_model,
    "coca": CocaModel,
}
"""Objective -> what builds the model that it trains; ``objectives.table`` has how it does."""


def initial_model(
    params: ModelParams, *, seed: int, objective: str = "captioning"
) -> PretrainedModel:
    """Build an objective's model from ``seed``; torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MODELS[objective](params)
