"""The caption decoder: causal, pre-norm, cross-attending to the encoder's pooled tokens.

Shapes: B captions, T tokens, D decoder width, M visual tokens, V vocabulary, H heads, K = D / H.
In generation: R rows of text, one or several (beams) per image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lapvqa.networks.encoder import (
    INIT_STD,
    NORM_EPS,
    Embedding,
    LayerNorm,
    Linear,
    Mlp,
    ResidualStream,
    init_linears,
)

GPT2_VOCABULARY = 50257
MAX_LENGTH = 512
_FEW_ROWS = 8  # up to here W @ x.T takes 0.3 to 0.97 of the time of x @ W.T on a CPU


@dataclass
class Cache:
    """Keys and values of all layers during generation, allocated once.

    ``tokens`` [layers, 2, R, H, T_max, K] of the ``length`` tokens so far, where R = B * beams and
    the beams of an image lie side by side; ``memory`` [layers, 2, B, H, M, K] of the images, for
    the layers that see them, which an image's beams share.
    """

    tokens: Tensor
    memory: Tensor
    length: int = 0

    def fan_out(self, beams: int) -> None:
        """Repeat the row of every image ``beams`` times."""
        self.tokens = self.tokens.repeat_interleave(beams, dim=2)

    def reorder(self, rows: list[int], images: list[int]) -> None:
        """Move row ``rows[i]`` and image ``images[i]`` to place i; drop all others."""
        _move(self.tokens[..., : self.length, :], rows)
        _move(self.memory, images)
        self.tokens, self.memory = self.tokens[:, :, : len(rows)], self.memory[:, :, : len(images)]


def _move(kept: Tensor, order: list[int]) -> None:
    """Set ``kept[:, :, i]`` to what was ``kept[:, :, order[i]]``, copying only what changes place.

    A row of memory weighs 18 MB at 729 visual tokens in float32, and every step reads it: where
    one row leaves, one moves.
    """
    places = [place for place, source in enumerate(order) if place != source]
    if places:
        sources = torch.tensor([order[place] for place in places], device=kept.device)
        moved = kept.index_select(2, sources)
        kept.index_copy_(2, torch.tensor(places, device=kept.device), moved)


def close_gaps(open_rows: list[int]) -> list[int]:
    """Order ascending rows for ``Cache.reorder``: the last fill the gaps, the others stay."""
    count = len(open_rows)
    staying = {row for row in open_rows if row < count}
    moving = iter(open_rows[len(staying) :])
    return [row if row in staying else next(moving) for row in range(count)]


class TextDecoder(Protocol):
    """The methods that greedy and beam search need; ``CaptionDecoder`` documents them."""

    max_length: int

    @property
    def vocabulary(self) -> int:
        """The number of tokens V."""

    def start(self, visual: Tensor, length: int) -> Cache:
        """Return an empty cache for ``length`` tokens."""

    def extend(self, token_ids: Tensor, cache: Cache) -> Tensor:
        """Add token ids [R, T]; return the logits [R, V] of what follows."""


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

    def extend(self, x: Tensor, tokens: Tensor, position: int) -> Tensor:
        """Map tokens [R, T, D] from ``position`` on, adding them to ``tokens`` [2, R, H, T_max, K].

        T is 1, or ``position`` is 0: there is no mask for anything between.
        """
        rows, count, width = x.shape
        qkv = self.qkv(x).view(rows, count, 3, self.heads, width // self.heads)
        qkv = qkv.permute(2, 0, 3, 1, 4)  # [3, R, H, T, K]
        tokens[:, :, :, position : position + count] = qkv[1:]
        keys, values = tokens[:, :, :, : position + count]
        attended = F.scaled_dot_product_attention(qkv[0], keys, values, is_causal=count > 1)
        projected: Tensor = self.proj(merge_heads(attended))
        return projected


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

    def extend(self, x: Tensor, memory: Tensor) -> Tensor:
        """Map tokens [R, T, D] to [R, T, D], reading ``memory`` [2, B, H, M, K], R = B * beams.

        Nothing is masked here, so the beams of an image are no more than further queries.
        """
        (q,) = split_heads(self.q(x).view(memory.shape[1], -1, x.shape[-1]), 1, self.heads)
        keys, values = memory
        if q.device.type == "cpu":
            # For few queries two matrix products are 1.3 times as fast as the fused kernel.
            scores = (q * q.shape[-1] ** -0.5) @ keys.transpose(-2, -1)
            attended = scores.softmax(dim=-1) @ values
        else:
            attended = F.scaled_dot_product_attention(q, keys, values)
        projected: Tensor = self.proj(merge_heads(attended)).view_as(x)
        return projected


class TextBlock(nn.Module):
    """Self-attention and MLP, each normed before and added: a layer that sees no image."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width, eps=NORM_EPS)
        self.attn = CausalAttention(width, heads)
        self.norm2 = LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, T, D] to [B, T, D]."""
        x = x + self.attn(self.norm1(x))
        mapped: Tensor = x + self.mlp(self.norm2(x))
        return mapped

    def extend(self, x: Tensor, tokens: Tensor, position: int) -> Tensor:
        """Do what ``forward`` does for tokens [R, T, D] that follow those in the cache."""
        x = x + self.attn.extend(self.norm1(x), tokens, position)
        mapped: Tensor = x + self.mlp(self.norm2(x))
        return mapped


class DecoderBlock(nn.Module):
    """Self-attention, cross-attention, MLP; each normed before and added."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width, eps=NORM_EPS)
        self.attn = CausalAttention(width, heads)
        self.norm_cross = LayerNorm(width, eps=NORM_EPS)
        self.cross = CrossAttention(width, heads)
        self.norm2 = LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor, visual: Tensor) -> Tensor:
        """Map [B, T, D] to [B, T, D], reading visual tokens [B, M, D]."""
        x = x + self.attn(self.norm1(x))
        x = x + self.cross(self.norm_cross(x), self.cross.memory(visual))
        mapped: Tensor = x + self.mlp(self.norm2(x))
        return mapped

    def remember(self, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values [B, H, M, K] of visual tokens [B, M, D]."""
        return self.cross.memory(visual)

    def extend(self, x: Tensor, tokens: Tensor, memory: Tensor, position: int) -> Tensor:
        """Do what ``forward`` does for tokens [R, T, D] that follow those in the cache."""
        x = x + self.attn.extend(self.norm1(x), tokens, position)
        x = x + self.cross.extend(self.norm_cross(x), memory)
        mapped: Tensor = x + self.mlp(self.norm2(x))
        return mapped


class CaptionDecoder(ResidualStream, nn.Module):
    """Causal transformer over GPT-2 tokens; the head is the token embedding (tied).

    ``text_depth`` layers that see words alone come before the ``depth`` that see the image too.
    """

    def __init__(
        self,
        *,
        visual_width: int,
        width: int = 512,
        depth: int = 6,
        heads: int = 8,
        vocabulary: int = GPT2_VOCABULARY,
        max_length: int = MAX_LENGTH,
        text_depth: int = 0,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"decoder width {width} must be a multiple of heads {heads}")
        self.width, self.heads, self.max_length = width, heads, max_length
        self.token_embed = Embedding(vocabulary, width)
        self.pos_embed = nn.Parameter(torch.empty(max_length, width))
        self.visual_proj = Linear(visual_width, width)
        self.text_blocks = nn.ModuleList(TextBlock(width, heads) for _ in range(text_depth))
        self.blocks = nn.ModuleList(DecoderBlock(width, heads) for _ in range(depth))
        self.norm = LayerNorm(width, eps=NORM_EPS)
        self.init_weights()

    @property
    def vocabulary(self) -> int:
        """The number of tokens, which training cuts and restores."""
        return len(self.token_embed.weight)

    def init_weights(self) -> None:
        """Set all weights from torch's current generator."""
        init_linears(self)
        nn.init.normal_(self.token_embed.weight, std=INIT_STD)
        nn.init.normal_(self.pos_embed, std=INIT_STD)

    def forward(self, token_ids: Tensor, visual: Tensor) -> Tensor:
        """Map token ids [B, T] and visual tokens [B, M, visual width] to hidden states [B, T, D].

        Raises ValueError for more tokens than there are positions.
        """
        return self.write(self.read(self.token_embed(token_ids)), visual)

    def read(self, embedded: Tensor) -> Tensor:
        """Map rows of the token table [B, T, D] to what the layers of words make of them."""
        length = embedded.shape[1]
        if length > self.max_length:
            raise ValueError(f"expected at most {self.max_length} tokens, found {length}")
        x = self.stream(embedded + self.pos_embed[:length])
        for block in self.text_blocks:
            x = block(x)
        return x

    def write(self, x: Tensor, visual: Tensor) -> Tensor:
        """Map what ``read`` returns and visual tokens to hidden states [B, T, D]."""
        memory = self.visual_proj(visual)
        for block in self._layers():
            x = block(x, memory)
        normed: Tensor = self.norm(x)
        return normed

    def logits(self, hidden: Tensor) -> Tensor:
        """Map hidden states [..., D] to logits [..., V]."""
        return F.linear(hidden, self.token_embed.weight)

    @torch.no_grad()
    def start(self, visual: Tensor, length: int) -> Cache:
        """Return an empty cache for ``length`` tokens over visual tokens [B, M, visual width]."""
        projected = self.visual_proj(visual)
        layers, head_width = self._layers(), self.width // self.heads
        batch, count = projected.shape[:2]
        sizes = (len(layers), 2, batch, self.heads)
        memory = projected.new_empty((*sizes, count, head_width))
        for block, keys_values in zip(layers, memory, strict=True):
            keys_values[0], keys_values[1] = block.remember(projected)
        total = len(self.text_blocks) + len(layers)
        return Cache(projected.new_empty((total, *sizes[1:], length, head_width)), memory)

    @torch.no_grad()
    def extend(self, token_ids: Tensor, cache: Cache) -> Tensor:
        """Add token ids [R, T] to ``cache``; return the logits [R, V] of the token after them.

        T is 1 unless the cache is empty.
        """
        count = token_ids.shape[1]
        if count > 1 and cache.length:
            raise ValueError(f"expected one token after the first call, found {count}")
        places = slice(cache.length, cache.length + count)
        x = self.stream(self.token_embed(token_ids) + self.pos_embed[places])
        words = cast("list[TextBlock]", list(self.text_blocks))
        first = len(words)
        for text_block, tokens in zip(words, cache.tokens[:first], strict=True):
            x = text_block.extend(x, tokens, cache.length)
        seeing = zip(self._layers(), cache.tokens[first:], cache.memory, strict=True)
        for block, tokens, memory in seeing:
            x = block.extend(x, tokens, memory, cache.length)
        cache.length += count
        return self._next_logits(self.norm(x[:, -1]))

    def _next_logits(self, hidden: Tensor) -> Tensor:
        """Do what ``logits`` does for hidden states [R, D]."""
        if hidden.device.type == "cpu" and len(hidden) <= _FEW_ROWS:
            return (self.token_embed.weight @ hidden.T).T
        return self.logits(hidden)

    def _layers(self) -> list[DecoderBlock]:
        return cast("list[DecoderBlock]", list(self.blocks))
