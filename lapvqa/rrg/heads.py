"""The head that writes a report from the visual tokens of one image."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from lapvqa.heads.head import Form
from lapvqa.heads.teaching import Lesson
from lapvqa.heads.text import TextHead, TextSizes


class ReportGenerationHead(TextHead):
    """Pre-norm decoder layers over GPT-2's vocabulary; ``lm_head`` is tied to ``tok_emb``.

    Source: card lapvqa-rrg-native, which gives arguments and file form but no layers; these are
    the VQA head's, with 512 positions. Its file is a dict with the arguments beside the weights.
    """

    sizes: ClassVar[TextSizes] = TextSizes(max_length=512)
    form: ClassVar[Form] = Form(
        keys={name: name for name in ("vis_dim", "d_model", "num_layers", "nhead")},
        scores=("val_bleu4",),
    )

    def __init__(
        self, vis_dim: int, d_model: int = 512, num_layers: int = 6, nhead: int = 8
    ) -> None:
        sizes = replace(self.sizes, d_model=d_model, num_layers=num_layers, nhead=nhead)
        super().__init__(vis_dim, sizes, tied=True)

    def forward(self, vis_tokens: Tensor, token_ids: Tensor) -> Tensor:
        """Map visual tokens [B, N, vis_dim] and token ids [B, T] to logits [B, T, 50257]."""
        return self.logits(self.hidden_states(token_ids, self.memory(vis_tokens)))

    def memory(self, vis_tokens: Tensor) -> Tensor:
        """Map visual tokens [B, N, vis_dim] to what the decoder reads, [B, N, d_model]."""
        return self.project(vis_tokens, name="vis_tokens")

    def loss(self, vis_tokens: Tensor, lesson: Lesson) -> Tensor:
        """Return the mean cross-entropy, in nats, of the reports' tokens."""
        return self.teacher_forcing(self.memory(vis_tokens), lesson)

    def generate(
        self,
        *,
        vis_tokens: Tensor,
        bos_id: int,
        eos_id: int,
        prompt_ids: Tensor | None = None,
        max_new_tokens: int = 256,
    ) -> list[list[int]]:
        """Return one list of token ids per image: its report, greedily, without prompt and end.

        ``prompt_ids`` [B, Q] stand before the report; none by default. See ``TextHead.write`` for
        lengths, end and errors.
        """
        memory = self.memory(vis_tokens)
        if prompt_ids is None:
            prompt_ids = torch.empty(len(memory), 0, dtype=torch.long, device=memory.device)
        return self.write(
            memory, prompt_ids, bos_id=bos_id, eos_id=eos_id, max_new_tokens=max_new_tokens
        )
