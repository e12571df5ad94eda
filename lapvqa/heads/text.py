"""The base of the heads that write: a causal decoder of torch's layers over visual memory.

Shapes: B images, N visual tokens, M memory tokens, T tokens, R rows, D = d_model, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lapvqa.heads import incremental
from lapvqa.heads.head import Head, check_features, check_heads, init_layers
from lapvqa.heads.teaching import NO_TARGET, Lesson
from lapvqa.networks.decoder import GPT2_VOCABULARY, Cache
from lapvqa.networks.encoder import INIT_STD
from lapvqa.networks.generation import continue_prompts
from lapvqa.networks.losses import head_loss

_FEW_ROWS = 8  # up to here W @ x.T is the faster product on a CPU


@dataclass(frozen=True)
class TextSizes:
    """Sizes of a text decoder; the published ones, but for ``max_length``."""

    max_length: int
    d_model: int = 512
    num_layers: int = 6
    nhead: int = 8
    vocabulary: int = GPT2_VOCABULARY


class TextHead(Head):
    """Embeddings, pre-norm decoder layers and output layer of the published text heads.

    A subclass says in ``sizes`` what its constructor does not take, and how features become the
    memory [B, M, D] that the decoder reads. ``tied``: one table reads and writes tokens.
    """

    sizes: ClassVar[TextSizes]
    log_count: Tensor | None = None
    """Of a cut vocabulary, how many tokens each row stands for: see ``lapvqa.heads.vocabulary``."""

    def __init__(self, vis_dim: int, sizes: TextSizes, *, tied: bool) -> None:
        super().__init__()
        check_heads(sizes.d_model, sizes.nhead)
        width = sizes.d_model
        self.vis_dim, self.d_model, self.nhead = vis_dim, width, sizes.nhead
        self.num_layers, self.max_length = sizes.num_layers, sizes.max_length
        self.vis_proj = nn.Linear(vis_dim, width)
        self.tok_emb = nn.Embedding(sizes.vocabulary, width)
        self.pos_emb = nn.Embedding(sizes.max_length, width)
        layer = nn.TransformerDecoderLayer(width, sizes.nhead, norm_first=True, batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, sizes.num_layers)
        self.lm_head = nn.Linear(width, sizes.vocabulary, bias=False)
        init_layers(self.decoder)
        for table in (self.tok_emb, self.pos_emb, self.lm_head):
            nn.init.normal_(table.weight, std=INIT_STD)
        if tied:
            self.lm_head.weight = self.tok_emb.weight

    @property
    def vocabulary(self) -> int:
        """The number of tokens V."""
        return self.tok_emb.num_embeddings

    def project(self, features: Tensor, *, name: str) -> Tensor:
        """Map visual tokens [B, N, vis_dim] to [B, N, D]; ValueError for another width."""
        check_features(features, name=name, width=self.vis_dim)
        projected: Tensor = self.vis_proj(features)
        return projected

    def hidden_states(self, token_ids: Tensor, memory: Tensor) -> Tensor:
        """Map token ids [B, T], begin first, and memory [B, M, D] to states [B, T, D].

        Raises ValueError for more tokens than there are positions.
        """
        length = token_ids.shape[1]
        if length > self.max_length:
            raise ValueError(f"expected at most {self.max_length} tokens, found {length}")
        x = self.tok_emb(token_ids) + self.pos_emb.weight[:length]
        mask = nn.Transformer.generate_square_subsequent_mask(length, x.device, x.dtype)
        states: Tensor = self.decoder(x, memory, tgt_mask=mask, tgt_is_causal=True)
        return states

    def logits(self, states: Tensor) -> Tensor:
        """Map states [..., D] to logits [..., V]."""
        mapped: Tensor = self.lm_head(states)
        return mapped

    def teacher_forcing(self, memory: Tensor, lesson: Lesson) -> Tensor:
        """Return the mean cross-entropy in nats over the answers' tokens of the batch.

        The output layer is computed where there is a target only.
        """
        asked = lesson.targets != NO_TARGET
        states = self.hidden_states(lesson.token_ids, memory)[asked]
        weight = self.lm_head.weight
        counts = self.log_count
        if counts is None:
            counts = weight.new_zeros(len(weight), dtype=torch.float32)
        total = head_loss(states, weight, counts.to(weight.device), lesson.targets[asked])
        return total / asked.sum()

    def write(
        self, memory: Tensor, prompt_ids: Tensor, *, bos_id: int, eos_id: int, max_new_tokens: int
    ) -> list[list[int]]:
        """Return the most likely token after token: what follows begin and prompt [B, Q].

        All prompts have Q tokens; for others see ``teaching.by_length``. A text ends before
        ``eos_id`` or after ``max_new_tokens``. Raises ValueError where 1 + Q + max_new_tokens - 1
        exceeds the positions. No dropout, whatever the mode.
        """
        begin = prompt_ids.new_full((len(prompt_ids), 1), bos_id)
        prompts = torch.cat([begin, prompt_ids], dim=1)
        return continue_prompts(self, memory, prompts, max_new_tokens=max_new_tokens, end=eos_id)

    @torch.no_grad()
    def start(self, visual: Tensor, length: int) -> Cache:
        """Return an empty cache for ``length`` tokens over memory [B, M, D]."""
        layers = self._layers()
        memory = torch.stack([incremental.memory_of(layer, visual) for layer in layers])
        count, _, batch, heads, _, size = memory.shape
        return Cache(memory.new_empty((count, 2, batch, heads, length, size)), memory)

    @torch.no_grad()
    def extend(self, token_ids: Tensor, cache: Cache) -> Tensor:
        """Add token ids [R, T] to ``cache``; return the logits [R, V] of the token after them.

        T is 1 unless the cache is empty.
        """
        count = token_ids.shape[1]
        x = self.tok_emb(token_ids) + self.pos_emb.weight[cache.length : cache.length + count]
        for layer, tokens, memory in zip(self._layers(), cache.tokens, cache.memory, strict=True):
            x = incremental.extend(layer, x, tokens, memory, cache.length)
        cache.length += count
        return self._next_logits(x[:, -1])

    def _next_logits(self, states: Tensor) -> Tensor:
        """Do what ``logits`` does for states [R, D]."""
        if states.device.type == "cpu" and len(states) <= _FEW_ROWS:
            return (self.lm_head.weight @ states.T).T
        return F.linear(states, self.lm_head.weight)

    def _layers(self) -> list[nn.TransformerDecoderLayer]:
        return cast("list[nn.TransformerDecoderLayer]", list(self.decoder.layers))


TextKind = TypeVar("TextKind", bound=TextHead)


def of_size(
    kind: type[TextKind],
    *,
    d_model: int,
    num_layers: int,
    nhead: int,
    vocabulary: int | None = None,
) -> type[TextKind]:
    """Return the class ``kind`` with other sizes, for a head whose constructor takes none.

    The published constructors of VQA and DiffVQA take ``vis_dim`` alone; so does what is returned.
    ``vocabulary``: None for that of ``kind``.
    """
    sizes = replace(
        kind.sizes,
        d_model=d_model,
        num_layers=num_layers,
        nhead=nhead,
        vocabulary=kind.sizes.vocabulary if vocabulary is None else vocabulary,
    )
    return type(kind.__name__, (kind,), {"sizes": sizes, "__module__": kind.__module__})
