"""The text encoder of the contrastive objectives: a bidirectional transformer over GPT-2 tokens.

Shapes: B reports, T tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lapvqa.networks.decoder import GPT2_VOCABULARY, MAX_LENGTH
from lapvqa.networks.encoder import (
    INIT_STD,
    NORM_EPS,
    Block,
    Embedding,
    LayerNorm,
    ResidualStream,
    init_linears,
)


class TextEncoder(ResidualStream, nn.Module):
    """Pre-norm transformer without a causal mask; a report is the mean of its tokens.

    Raises ValueError for a width that the heads do not divide.
    """

    def __init__(
        self,
        *,
        width: int = 512,
        depth: int = 6,
        heads: int = 8,
        vocabulary: int = GPT2_VOCABULARY,
        max_length: int = MAX_LENGTH,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"text width {width} must be a multiple of heads {heads}")
        self.width, self.max_length = width, max_length
        self.token_embed = Embedding(vocabulary, width)
        self.pos_embed = nn.Parameter(torch.empty(max_length, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = LayerNorm(width, eps=NORM_EPS)
        init_linears(self)
        nn.init.normal_(self.token_embed.weight, std=INIT_STD)
        nn.init.normal_(self.pos_embed, std=INIT_STD)

    def forward(self, token_ids: Tensor, valid: Tensor) -> Tensor:
        """Map token ids [B, T], where ``valid`` bool [B, T] is not padding, to means [B, D].

        Raises ValueError for more tokens than there are positions.
        """
        length = token_ids.shape[1]
        if length > self.max_length:
            raise ValueError(f"expected at most {self.max_length} tokens, found {length}")
        x = self.stream(self.token_embed(token_ids) + self.pos_embed[:length])
        attn_mask = valid[:, None, None, :]
        for block in self.blocks:
            x = block(x, attn_mask)
        weights = valid.unsqueeze(2).to(x.dtype)
        mean: Tensor = (self.norm(x) * weights).sum(dim=1) / weights.sum(dim=1)
        return mean
