"""The DiffVQA head: a causal decoder over the visual tokens of two images."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from lapvqa.heads.head import Form
from lapvqa.heads.teaching import Lesson
from lapvqa.heads.text import TextHead, TextSizes
from lapvqa.networks.encoder import INIT_STD

REFERENCE, CURRENT = 0, 1
"""Rows of ``frame_emb``."""


class DiffVQAHead(TextHead):
    """Six pre-norm decoder layers of width 512 over reference and current tokens.

    ``vis_proj`` is shared; ``frame_emb`` says which image a token is of. ``lm_head`` has weights of
    its own. Source: card lapvqa-diffvqa. Its file is the plain state dict.
    """

    sizes: ClassVar[TextSizes] = TextSizes(max_length=200)
    form: ClassVar[Form] = Form()

    def __init__(self, vis_dim: int) -> None:
        super().__init__(vis_dim, self.sizes, tied=False)
        self.frame_emb = nn.Embedding(2, self.d_model)
        nn.init.normal_(self.frame_emb.weight, std=INIT_STD)

    def forward(self, curr_vis: Tensor, ref_vis: Tensor, token_ids: Tensor) -> Tensor:
        """Map two images' tokens [B, N, vis_dim] and token ids [B, T] to logits [B, T, 50257]."""
        return self.logits(self.hidden_states(token_ids, self.memory(curr_vis, ref_vis)))

    def memory(self, curr_vis: Tensor, ref_vis: Tensor) -> Tensor:
        """Map two images' tokens [B, N, vis_dim] to [reference ; current], [B, 2 N, 512]."""
        frames = self.frame_emb.weight
        reference = self.project(ref_vis, name="ref_vis") + frames[REFERENCE]
        current = self.project(curr_vis, name="curr_vis") + frames[CURRENT]
        if len(reference) != len(current):
            raise ValueError(
                f"expected a reference for each of {len(current)} images, found {len(reference)}"
            )
        return torch.cat([reference, current], dim=1)

    def loss(self, curr_vis: Tensor, ref_vis: Tensor, lesson: Lesson) -> Tensor:
        """Return the mean cross-entropy, in nats, of the answers' tokens."""
        return self.teacher_forcing(self.memory(curr_vis, ref_vis), lesson)

    def generate(
        self,
        *,
        curr_vis: Tensor,
        ref_vis: Tensor,
        prompt_ids: Tensor,
        bos_id: int,
        eos_id: int,
        max_new_tokens: int = 128,
    ) -> list[list[int]]:
        """Return one list of token ids per pair: the answer to its question [B, Q], greedily.

        See ``TextHead.write`` for lengths, end and errors.
        """
        return self.write(
            self.memory(curr_vis, ref_vis),
            prompt_ids,
            bos_id=bos_id,
            eos_id=eos_id,
            max_new_tokens=max_new_tokens,
        )
