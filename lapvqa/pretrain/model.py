"""The published models: built without arguments at the published sizes, or from parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lapvqa.params import ModelParams
from lapvqa.pretrain.decoder import CaptionDecoder
from lapvqa.pretrain.encoder import VisionEncoder

__all__ = ["CaptionDecoder", "CaptioningModel", "VisionEncoder", "build_encoder", "initial_model"]


def build_encoder(params: ModelParams) -> VisionEncoder:
    """Build a vision encoder of these sizes."""
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

    @classmethod
    def from_params(cls, params: ModelParams) -> CaptioningModel:
        """Build a model of these sizes."""
        return cls(params)

    def forward(self, images: Tensor, token_ids: Tensor) -> Tensor:
        """Map images [B, 1 or 3, S, S] and token ids [B, T] to logits [B, T, 50257]."""
        return self.decoder.logits(self.hidden_states(images, token_ids))

    def hidden_states(self, images: Tensor, token_ids: Tensor) -> Tensor:
        """Map the same to the hidden states [B, T, D] before the head.

        Training takes these, to spend the head on positions that have a target only.
        """
        hidden: Tensor = self.decoder(token_ids, self.vision_encoder(images))
        return hidden


def initial_model(params: ModelParams, *, seed: int) -> CaptioningModel:
    """Build a model whose weights come from ``seed``; torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CaptioningModel.from_params(params)
