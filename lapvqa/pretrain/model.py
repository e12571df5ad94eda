"""The published models: built without arguments at the published sizes, or from parameters."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lapvqa.networks.decoder import CaptionDecoder
from lapvqa.networks.encoder import Embedding, Linear, VisionEncoder
from lapvqa.networks.text_encoder import TextEncoder
from lapvqa.params import ModelParams

__all__ = [
    "OBJECTIVES",
    "CaptionDecoder",
    "CaptioningModel",
    "ContrastiveModel",
    "TextEncoder",
    "VisionEncoder",
    "build_encoder",
    "initial_model",
    "writes_reports",
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


class CaptioningModel(nn.Module):
    """ViT encoder and causal decoder that writes the report.

    Without arguments: ViT-L/14 at 384 px and 6 layers of width 512 over GPT-2's 50257 tokens.
    """

    def __init__(self, params: ModelParams | None = None) -> None:
        super().__init__()
        params = params or ModelParams()
        self.vision_encoder = build_encoder(params)
        self.decoder = CaptionDecoder(
            visual_width=params.width,
            width=params.decoder_width,
            depth=params.decoder_depth,
            heads=params.decoder_heads,
        )

    @property
    def token_table(self) -> tuple[str, Embedding]:
        """The decoder's table, which is its head too."""
        return "decoder.token_embed.weight", self.decoder.token_embed

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


class ContrastiveModel(nn.Module):
    """ViT encoder and bidirectional text encoder with one embedding space.

    Without arguments: ViT-L/14 at 384 px, text 6 layers of width 512, a space of 512 dimensions.
    One class for InfoNCE (CLIP, arXiv:2103.00020) and the pairwise sigmoid loss (SigLIP,
    arXiv:2303.15343): ``logit_scale`` is the logarithm of the inverse temperature, ``logit_bias``
    is used by the sigmoid alone.
    """

    def __init__(self, params: ModelParams | None = None) -> None:
        super().__init__()
        params = params or ModelParams()
        self.vision_encoder = build_encoder(params)
        self.text_encoder = TextEncoder(
            width=params.text_width, depth=params.text_depth, heads=params.text_heads
        )
        self.image_proj = Linear(params.width, params.embed_dim, bias=False)
        self.text_proj = Linear(params.text_width, params.embed_dim, bias=False)
        for projection in (self.image_proj, self.text_proj):
            nn.init.xavier_uniform_(projection.weight)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.logit_bias = nn.Parameter(torch.tensor(0.0))

    @property
    def token_table(self) -> tuple[str, Embedding]:
        """The text encoder's table."""
        return "text_encoder.token_embed.weight", self.text_encoder.token_embed

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


OBJECTIVES: dict[str, type[CaptioningModel] | type[ContrastiveModel]] = {
    "captioning": CaptioningModel,
    "contrastive": ContrastiveModel,
    "sigmoid": ContrastiveModel,
}
"""Objective -> the model that it trains; ``objective.LOSSES`` has the loss of each."""


def writes_reports(objective: str) -> bool:
    """Say whether the objective's model writes reports."""
    return OBJECTIVES[objective] is CaptioningModel


# SigLIP's start, t = 10 and b = -10: at first every pair counts as a negative, as nearly all are.
_SIGMOID_SCALE, _SIGMOID_BIAS = math.log(10), -10.0


def initial_model(
    params: ModelParams, *, seed: int, objective: str = "captioning"
) -> CaptioningModel | ContrastiveModel:
    """Build an objective's model from ``seed``; torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = OBJECTIVES[objective](params)
    if isinstance(model, ContrastiveModel):
        _init_scale_and_bias(model, objective)
    return model


def _init_scale_and_bias(model: ContrastiveModel, objective: str) -> None:
    """Set the initial scale and bias of the sigmoid loss; InfoNCE trains no bias."""
    with torch.no_grad():
        if objective == "sigmoid":
            model.logit_scale.fill_(_SIGMOID_SCALE)
            model.logit_bias.fill_(_SIGMOID_BIAS)
    model.logit_bias.requires_grad_(objective == "sigmoid")
