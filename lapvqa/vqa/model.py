"""The VQA head: a causal decoder over the visual tokens of one image."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from lapvqa.heads.head import Form
from lapvqa.heads.teaching import Lesson
from lapvqa.heads.text import TextHead, TextSizes


class VQAHead(TextHead):
    """Six pre-norm decoder layers of width 512; ``lm_head`` is tied to ``tok_emb``.

    Source: card lapvqa-vqa. Its file is the plain state dict.
    """

    sizes: ClassVar[TextSizes] = TextSizes(max_length=150)
    form: ClassVar[Form] = Form()

    def __init__(self, vis_dim: int) -> None:
        super().__init__(vis_dim, self.sizes, tied=True)

    def forward(self, vis_tokens: Tensor, token_ids: Tensor) -> Tensor:
        """Map visual tokens [B, N, vis_dim] and token ids [B, T] to logits [B, T, 50257]."""
        return self.logits(self.hidden_states(token_ids, self.memory(vis_tokens)))

    def memory(self, vis_tokens: Tensor) -> Tensor:
        """Map visual tokens [B, N, vis_dim] to what the decoder reads, [B, N, 512]."""
        return self.project(vis_tokens, name="vis_tokens")

    def loss(self, vis_tokens: Tensor, lesson: Lesson) -> Tensor:
        """Return the mean cross-entropy, in nats, of the answers' tokens."""
        return self.teacher_forcing(self.memory(vis_tokens), lesson)

    def generate(
        self,
        *,
        vis_tokens: Tensor,
        prompt_ids: Tensor,
        bos_id: int,
        eos_id: int,
        max_new_tokens: int = 64,
    ) -> list[list[int]]:
        """Return one list of token ids per image: the answer to its question [B, Q], greedily.

        See ``TextHead.write`` for lengths, end and errors.
        """
        return self.write(
            self.memory(vis_tokens),
            prompt_ids,
            bos_id=bos_id,
            eos_id=eos_id,
            max_new_tokens=max_new_tokens,
        )
