"""The vision encoder: a pre-norm ViT with timm's parameter names.

Shapes: B images, S pixels a side, P pixels a patch, G = S // P patches a side, N = G * G patches,
D width, g pooled grid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

NORM_EPS = 1e-6  # timm's
INIT_STD = 0.02


class Linear(nn.Linear):
    """A linear layer that leaves its weights unset: the model initialises all of them once."""

    def reset_parameters(self) -> None:
        """Do nothing; see ``init_weights`` of the model."""


class PatchConv(nn.Conv2d):
    """A convolution that leaves its weights unset, like ``Linear``."""

    def reset_parameters(self) -> None:
        """Do nothing; see ``init_weights`` of the model."""


class Embedding(nn.Embedding):
    """An embedding that leaves its weights unset, like ``Linear``."""

    def reset_parameters(self) -> None:
        """Do nothing; see ``init_weights`` of the model."""


class LayerNorm(nn.LayerNorm):
    """A norm whose parameters follow the precision of its input, whatever a shard is kept in."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., D] to [..., D]."""
        if x.dtype == self.weight.dtype:
            return super().forward(x)
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):  # which would widen it again
            return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


class ResidualStream:
    """What blocks add to, in the precision ``residuals``; None: in that of what comes in."""

    residuals: torch.dtype | None = None

    def stream(self, x: Tensor) -> Tensor:
        """Return what the first block gets."""
        return x if self.residuals is None else x.to(self.residuals)


def init_linears(module: nn.Module) -> None:
    """Set every projection below ``module`` to Xavier-uniform weights and zero biases.

    As the original ViT does; a fixed N(0, 0.02) is right at width 1024 only, and so small at the
    width of a demo that the text model learns long before the images have any effect.
    """
    for child in module.modules():
        if isinstance(child, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(child.weight.flatten(1))
            if child.bias is not None:
                nn.init.zeros_(child.bias)


class PatchEmbed(nn.Module):
    """Cut an image into patches and project each to the width."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = PatchConv(3, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """Map [B, 1 or 3, S, S] to [B, N, D], row by row; pixels beyond G * P are ignored."""
        weight = self.proj.weight
        if images.shape[1] == 1:
            # Three equal channels seen through three kernels are one channel seen through
            # their sum: the expansion to three channels without its cost.
            weight = weight.sum(dim=1, keepdim=True)
        patches = F.conv2d(images, weight, self.proj.bias, stride=self.proj.stride)
        return patches.flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Bidirectional multi-head self-attention with fused qkv."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Map [B, N, D] to [B, N, D]; ``attn_mask`` bool [B, 1, 1, N] is false on padding."""
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, heads, N, D / heads]
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        projected: Tensor = self.proj(attended.transpose(1, 2).reshape(batch, length, width))
        return projected


class Mlp(nn.Module):
    """Two layers, four times the width between them, exact GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, 4 * width)
        self.fc2 = Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., D] to [..., D]."""
        mapped: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return mapped


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width, eps=NORM_EPS)
        self.attn = Attention(width, heads)
        self.norm2 = LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Map [B, N, D] to [B, N, D]; ``attn_mask`` as in ``Attention``."""
        x = x + self.attn(self.norm1(x), attn_mask)
        mapped: Tensor = x + self.mlp(self.norm2(x))
        return mapped


class VisionEncoder(ResidualStream, nn.Module):
    """ViT with a class token and learned positions; without arguments, ViT-L/14 at 384 px.

    The state dict has the names of timm's VisionTransformer (294 tensors at 24 layers); the class
    token takes part in attention and is dropped from the output.
    Raises ValueError for sizes that do not fit together.
    """

    pooling: Tensor
    checkpointing: bool = False
    """Recompute each block in the backward pass instead of keeping its activations."""

    def __init__(
        self,
        *,
        image_size: int = 384,
        patch_size: int = 14,
        width: int = 1024,
        depth: int = 24,
        heads: int = 16,
        pooled_grid: int = 16,
    ) -> None:
        super().__init__()
        grid = image_size // patch_size
        if width % heads:
            raise ValueError(f"width {width} must be a multiple of heads {heads}")
        if not 1 <= pooled_grid <= grid:
            raise ValueError(f"pooled_grid {pooled_grid} must be in 1..{grid} (patches a side)")
        self.image_size, self.patch_size = image_size, patch_size
        self.width, self.grid, self.pooled_grid = width, grid, pooled_grid
        self.patch_embed = PatchEmbed(patch_size, width)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + grid * grid, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = LayerNorm(width, eps=NORM_EPS)
        self.register_buffer("pooling", pooling_matrix(grid, pooled_grid), persistent=False)
        self.init_weights()

    def init_weights(self) -> None:
        """Set all weights from torch's current generator."""
        init_linears(self)
        nn.init.normal_(self.cls_token, std=1e-6)
        with torch.no_grad():
            self.pos_embed[:, :1] = 0
            self.pos_embed[:, 1:] = grid_waves(self.grid, self.pos_embed.shape[-1])

    def forward(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """Map images [B, 1 or 3, S, S] to pooled tokens [B, g * g, D], row by row.

        With ``keep`` int64 [B, K] only those patches are encoded: [B, K, D], not pooled.
        """
        tokens = self.patch_tokens(images, keep)
        return self.pool(tokens) if keep is None else tokens

    def patch_tokens(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """Map images [B, 1 or 3, S, S] to all patch tokens [B, N, D], for tasks that locate."""
        return self.forward_features(images, keep)[:, 1:]

    def forward_features(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """Map images [B, 1 or 3, S, S] to class token and patch tokens [B, 1 + N, D], normed.

        Raises ValueError for an input of another shape.
        """
        size = self.image_size
        if images.ndim != 4 or images.shape[1] not in (1, 3) or images.shape[2:] != (size, size):
            raise ValueError(
                f"expected images [B, 1 or 3, {size}, {size}], found {list(images.shape)}"
            )
        patches = self.patch_embed(images) + self.pos_embed[:, 1:]
        if keep is not None:
            patches = patches.gather(1, keep.unsqueeze(2).expand(-1, -1, self.width))
        first = self.cls_token + self.pos_embed[:, :1]
        x = self.stream(torch.cat([first.expand(patches.shape[0], -1, -1), patches], dim=1))
        for block in self.blocks:
            if self.checkpointing and self.training:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        normed: Tensor = self.norm(x)
        return normed

    def pool(self, tokens: Tensor) -> Tensor:
        """Average patch tokens [B, N, D] over the cells of the pooled grid: [B, g * g, D]."""
        if self.pooled_grid == self.grid:
            return tokens
        batch, _, width = tokens.shape
        # Two products with a constant matrix: adaptive pooling whose backward pass is
        # deterministic on a GPU too (adaptive_avg_pool2d's is not).
        pooling = self.pooling.to(tokens.dtype)
        rows = pooling @ tokens.view(batch, self.grid, self.grid * width)
        cells = pooling @ rows.view(batch * self.pooled_grid, self.grid, width)
        return cells.view(batch, self.pooled_grid**2, width)


def pooling_matrix(grid: int, pooled: int) -> Tensor:
    """Return [pooled, grid] weights of one-dimensional adaptive average pooling.

    Cell i averages floor(i * grid / pooled) up to ceil((i + 1) * grid / pooled), as
    torch.nn.functional.adaptive_avg_pool1d does.
    """
    weights = torch.zeros(pooled, grid)
    for cell in range(pooled):
        start, stop = cell * grid // pooled, -(-(cell + 1) * grid // pooled)
        weights[cell, start:stop] = 1 / (stop - start)
    return weights


def grid_waves(grid: int, width: int) -> Tensor:
    """Return [grid * grid, width] sines and cosines of row and column, amplitude 1.

    Half of the width encodes the row, half the column, at wavelengths from 2 pi to 10000 * 2 pi
    patches (Vaswani et al. 2017, in two dimensions as in MoCo v3).
    """
    quarter = width // 4
    rates = 10000.0 ** -(torch.arange(quarter) / max(quarter, 1))
    angles = torch.arange(grid).unsqueeze(1) * rates  # [grid, quarter]
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows = waves.repeat_interleave(grid, dim=0)
    columns = waves.repeat(grid, 1)
    both = torch.cat([rows, columns], dim=1)
    return nn.functional.pad(both, (0, width - both.shape[1]))
