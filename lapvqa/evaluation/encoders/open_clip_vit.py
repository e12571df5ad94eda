"""The vision tower of open_clip (CLIP, CoCa) under its own tensor names, up to its tokens.

Source: open_clip's file format; the architecture is CLIP's (arXiv:2103.00020) with the options
below, CoCa's pooler reads its tokens (arXiv:2205.01917). N patches, D width.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class VitSizes:
    """Sizes and options; the defaults are open_clip's.

    ``quick_gelu``: x * sigmoid(1.702 x), as OpenAI's weights need; ``approximate``: of GELU;
    ``scaled``: a learned scale on each residual branch; ``pooler``: CoCa's attentional pooler
    reads the tokens, through a norm of its own.
    """

    image_size: int = 224
    patch_size: int = 16
    width: int = 768
    layers: int = 12
    head_width: int = 64
    mlp_ratio: float = 4.0
    eps: float = 1e-5
    approximate: str = "none"
    quick_gelu: bool = False
    norm_first: bool = True
    scaled: bool = False
    pooler: bool = False


class QuickGelu(nn.Module):
    """The GELU of OpenAI's first weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., D] to [..., D]."""
        return x * torch.sigmoid(1.702 * x)


class Scale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., D] to [..., D]."""
        return x * self.gamma


class ResidualBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, sizes: VitSizes) -> None:
        super().__init__()
        width, hidden = sizes.width, int(sizes.width * sizes.mlp_ratio)
        self.ln_1 = nn.LayerNorm(width, eps=sizes.eps)
        self.attn = nn.MultiheadAttention(width, width // sizes.head_width, batch_first=True)
        self.ls_1 = Scale(width) if sizes.scaled else nn.Identity()
        self.ln_2 = nn.LayerNorm(width, eps=sizes.eps)
        gelu = QuickGelu() if sizes.quick_gelu else nn.GELU(approximate=sizes.approximate)
        layers = [
            ("c_fc", nn.Linear(width, hidden)),
            ("gelu", gelu),
            ("c_proj", nn.Linear(hidden, width)),
        ]
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.ls_2 = Scale(width) if sizes.scaled else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, 1 + N, D] to [B, 1 + N, D]."""
        normed = self.ln_1(x)
        x = x + self.ls_1(self.attn(normed, normed, normed, need_weights=False)[0])
        mapped: Tensor = x + self.ls_2(self.mlp(self.ln_2(x)))
        return mapped


class OpenClipVit(nn.Module):
    """CLIP's ViT up to the norm before its pooled feature."""

    def __init__(self, sizes: VitSizes) -> None:
        super().__init__()
        width, grid = sizes.width, sizes.image_size // sizes.patch_size
        self.conv1 = nn.Conv2d(3, width, sizes.patch_size, stride=sizes.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(grid * grid + 1, width))
        self.ln_pre = nn.LayerNorm(width, eps=sizes.eps) if sizes.norm_first else nn.Identity()
        self.transformer = nn.Module()
        blocks = nn.ModuleList(ResidualBlock(sizes) for _ in range(sizes.layers))
        self.transformer.resblocks = blocks
        norm = nn.LayerNorm(width, eps=sizes.eps)
        if sizes.pooler:
            self.attn_pool = nn.ModuleDict({"ln_k": norm})
        else:
            self.ln_post = norm
        self._norm, self._blocks = [norm], [blocks]  # in lists: the state dict has each once

    def forward(self, images: Tensor) -> Tensor:
        """Map input [B, 3, S, S] to patch tokens [B, N, D], without class token."""
        patches = self.conv1(images).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(images), 1, -1)
        x = self.ln_pre(torch.cat([first, patches], dim=1) + self.positional_embedding)
        for block in self._blocks[0]:
            x = block(x)
        tokens: Tensor = self._norm[0](x)[:, 1:]
        return tokens
