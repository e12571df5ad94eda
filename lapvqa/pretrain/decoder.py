"""The caption decoder: causal, pre-norm, cross-attending to the encoder's pooled tokens.

Shapes: B captions, T tokens, D decoder width, M visual tokens, V vocabulary, H heads, K = D / H.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lapvqa.pretrain.encoder import INIT_STD, NORM_EPS, Embedding, Linear, Mlp, init_linears

GPT2_VOCABULARY = 50257
MAX_LENGTH = 512


@dataclass
class LayerCache:
    """Keys and values of one layer during generation.

    ``keys``, ``values`` [B, H, T_max, K] of the tokens so far; ``memory`` the two of the image.
    """

    keys: Tensor
    values: Tensor
    memory: tuple[Tensor, Tensor]

    def take(self, rows: Tensor) -> LayerCache:
        """Return the cache of these rows only."""
        memory_keys, memory_values = self.memory
        return LayerCache(
            self.keys[rows], self.values[rows], (memory_keys[rows], memory_values[rows])
        )


def split_heads(x: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """Split [B, T, parts * D] into ``parts`` tensors [B, H, T, K]."""
    batch, length, width = x.shape
    split = x.view(batch, length, parts, heads, width // (parts * heads))
    return split.permute(2, 0, 3, 1, 4).unbind(0)


def merge_heads(x: Tensor) -> Tensor:
    """Join [B, H, T, K] to [B, T, D]."""
    batch, heads, length, size = x.shape
    return x.transpose(1, 2).reshape(batch, length, heads * size)


class CausalAttention(nn.Module):
    """Causal multi-head self-attention with fused qkv."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, T, D] to [B, T, D]; a token sees itself and those before it."""
        q, k, v = split_heads(self.qkv(x), 3, self.heads)
        attended: Tensor = self.proj(
            merge_heads(F.scaled_dot_product_attention(q, k, v, is_causal=True))
        )
        return attended

    def step(self, x: Tensor, cache: LayerCache, position: int) -> Tensor:
        """Map the token [B, 1, D] at ``position``, adding its key and value to ``cache``."""
        q, k, v = split_heads(self.qkv(x), 3, self.heads)
        cache.keys[:, :, position : position + 1] = k
        cache.values[:, :, position : position + 1] = v
        seen = slice(position + 1)
        attended: Tensor = self.proj(
            merge_heads(
                F.scaled_dot_product_attention(q, cache.keys[:, :, seen], cache.values[:, :, seen])
            )
        )
        return attended


class CrossAttention(nn.Module):
    """Multi-head attention from text to visual tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = Linear(width, width)
        self.kv = Linear(width, 2 * width)
        self.proj = Linear(width, width)

    def memory(self, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values [B, H, M, K] of visual tokens [B, M, D]."""
        keys, values = split_heads(self.kv(visual), 2, self.heads)
        return keys, values

    def forward(self, x: Tensor, memory: tuple[Tensor, Tensor]) -> Tensor:
        """Map [B, T, D] to [B, T, D], reading ``memory``."""
        (q,) = split_heads(self.q(x), 1, self.heads)
        attended: Tensor = self.proj(merge_heads(F.scaled_dot_product_attention(q, *memory)))
        return attended


class DecoderBlock(nn.Module):
    """Self-attention, cross-attention, MLP; each normed before and added."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = CausalAttention(width, heads)
        self.norm_cross = nn.LayerNorm(width, eps=NORM_EPS)
        self.cross = CrossAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor, visual: Tensor) -> Tensor:
        """Map [B, T, D] to [B, T, D], reading visual tokens [B, M, D]."""
        x = x + self.attn(self.norm1(x))
        x = x + self.cross(self.norm_cross(x), self.cross.memory(visual))
        mapped: Tensor = x + self.mlp(self.norm2(x))
        return mapped

    def step(self, x: Tensor, cache: LayerCache, position: int) -> Tensor:
        """Do what ``forward`` does, for the one token [B, 1, D] at ``position``."""
        x = x + self.attn.step(self.norm1(x), cache, position)
        x = x + self.cross(self.norm_cross(x), cache.memory)
        mapped: Tensor = x + self.mlp(self.norm2(x))
        return mapped


class CaptionDecoder(nn.Module):
    """Causal transformer over GPT-2 tokens; the head is the token embedding (tied)."""

    def __init__(
        self,
        *,
        visual_width: int,
        width: int = 512,
        depth: int = 6,
        heads: int = 8,
        vocabulary: int = GPT2_VOCABULARY,
        max_length: int = MAX_LENGTH,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"decoder width {width} must be a multiple of heads {heads}")
        self.width, self.heads, self.max_length = width, heads, max_length
        self.token_embed = Embedding(vocabulary, width)
        self.pos_embed = nn.Parameter(torch.empty(max_length, width))
        self.visual_proj = Linear(visual_width, width)
        self.blocks = nn.ModuleList(DecoderBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.init_weights()

    def init_weights(self) -> None:
        """Set all weights from torch's current generator."""
        init_linears(self)
        nn.init.normal_(self.token_embed.weight, std=INIT_STD)
        nn.init.normal_(self.pos_embed, std=INIT_STD)

    def forward(self, token_ids: Tensor, visual: Tensor) -> Tensor:
        """Map token ids [B, T] and visual tokens [B, M, visual width] to hidden states [B, T, D].

        Raises ValueError for more tokens than there are positions.
        """
        length = token_ids.shape[1]
        if length > self.max_length:
            raise ValueError(f"expected at most {self.max_length} tokens, found {length}")
        x = self.token_embed(token_ids) + self.pos_embed[:length]
        memory = self.visual_proj(visual)
        for block in self._layers():
            x = block(x, memory)
        normed: Tensor = self.norm(x)
        return normed

    def logits(self, hidden: Tensor) -> Tensor:
        """Map hidden states [..., D] to logits [..., V]."""
        return F.linear(hidden, self.token_embed.weight)

    def start(self, visual: Tensor, length: int) -> list[LayerCache]:
        """Return empty caches for ``length`` tokens over visual tokens [B, M, visual width]."""
        memory = self.visual_proj(visual)
        shape = (len(visual), self.heads, length, self.width // self.heads)
        return [
            LayerCache(memory.new_empty(shape), memory.new_empty(shape), block.cross.memory(memory))
            for block in self._layers()
        ]

    def step(self, token_ids: Tensor, caches: list[LayerCache], position: int) -> Tensor:
        """Map the token ids [B] at ``position`` to the logits [B, V] of the next."""
        x = (self.token_embed(token_ids) + self.pos_embed[position]).unsqueeze(1)
        for block, cache in zip(self._layers(), caches, strict=True):
            x = block.step(x, cache, position)
        return self.logits(self.norm(x)[:, 0])

    def _layers(self) -> list[DecoderBlock]:
        return cast("list[DecoderBlock]", list(self.blocks))
