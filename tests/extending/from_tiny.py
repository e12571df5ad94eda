"""Patch embeddings in folders of their own form: tiny.json and tiny.safetensors."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from lapvqa.evaluation.encoders.external import (
    ExternalEncoder,
    Preprocess,
    channel_values,
    find_weights,
    load_exactly,
    read_config,
    resize_with_pillow,
    square_side,
)
from lapvqa.networks.weights import read_weights

TINY_CONFIG, WEIGHTS = "tiny.json", "tiny.safetensors"


class PatchEmbedding(nn.Module):
    """One convolution over patches, and a norm."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, width, patch, stride=patch)
        self.norm = nn.LayerNorm(width)

    def forward(self, images: Tensor) -> Tensor:
        """Map input [B, 1, S, S] to tokens [B, N, D], by rows."""
        tokens: Tensor = self.norm(self.patch(images).flatten(2).transpose(1, 2))
        return tokens


def open_tiny(folder: Path) -> ExternalEncoder:
    """Open such a folder; CheckpointError if a file is missing or damaged or does not fit."""
    config = read_config(folder / TINY_CONFIG)
    size, patch = (square_side(config.get(name), where=TINY_CONFIG) for name in ("size", "patch"))
    weights = read_weights(find_weights(folder, [WEIGHTS]))
    width = len(weights["norm.weight"]) if "norm.weight" in weights else 1
    tower = PatchEmbedding(patch, width)
    load_exactly(tower, weights, name=WEIGHTS)
    preprocess = Preprocess(
        resize_with_pillow(size, "bilinear", where=TINY_CONFIG),
        mean=channel_values(config.get("mean"), channels=1, where=TINY_CONFIG),
        std=channel_values(config.get("std"), channels=1, where=TINY_CONFIG),
        about="bilinear",
    )
    return ExternalEncoder(tower, preprocess, width=width, about="tiny patch embedding")
