"""The base of the heads that write: a causal decoder of torch's layers over visual memory.

Shapes: B images, N visual tokens, M memory tokens, T tokens, R rows (one or several to an image),
D = d_model, V vocabulary, H attention heads, K = D / H.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lapvqa.heads.head import Head, check_features, check_heads, init_layers
from lapvqa.heads.teaching import NO_TARGET, Lesson
from lapvqa.networks.decoder import GPT2_VOCABULARY, Cache, merge_heads, split_heads
from lapvqa.networks.encoder import INIT_STD
from lapvqa.networks.generation import continue_prompts
from lapvqa.networks.losses import head_loss
from lapvqa.networks.vocabulary import CutVocabulary

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
    """Of a cut vocabulary, how many tokens each row stands for: see ``cut_vocabulary``."""

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
        memory = torch.stack([_keys_and_values(layer, visual) for layer in layers])
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
            x = _extend(layer, x, tokens, memory, cache.length)
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


def cut_vocabulary(head: TextHead, texts: Sequence[Sequence[int]]) -> CutVocabulary:
    """Cut the head's tables to the tokens of ``texts``, prompts and ends included.

    Before training: until ``restore_vocabulary`` the head takes numbers of the cut vocabulary,
    afterwards GPT-2 ids, and its file has the published 50257 rows. Raises ValueError for a head of
    another vocabulary, or one that is cut already.
    """
    _check_vocabulary(head, GPT2_VOCABULARY)
    words = CutVocabulary(np.array(text, dtype=np.uint16) for text in texts)
    _replace_tables(
        head, words.rows_of(head.tok_emb.weight.detach()), _output_table(head, words.rows_of)
    )
    head.log_count = words.log_count
    return words


def restore_vocabulary(head: TextHead, words: CutVocabulary) -> None:
    """Give a cut head tables of all 50257 rows again; ValueError unless ``words`` are its own."""
    _check_vocabulary(head, len(words))
    _replace_tables(
        head, words.table_of(head.tok_emb.weight.detach()), _output_table(head, words.table_of)
    )
    head.log_count = None


def _check_vocabulary(head: TextHead, vocabulary: int) -> None:
    if head.vocabulary != vocabulary:
        raise ValueError(f"expected a head of {vocabulary} tokens, found {head.vocabulary}")


def _output_table(head: TextHead, change: Callable[[Tensor], Tensor]) -> Tensor | None:
    """Return the changed table of the output layer; None if it is that of the input."""
    tied = head.lm_head.weight is head.tok_emb.weight
    return None if tied else change(head.lm_head.weight.detach())


def _replace_tables(head: TextHead, table: Tensor, output: Tensor | None) -> None:
    head.tok_emb.weight, head.tok_emb.num_embeddings = nn.Parameter(table), len(table)
    head.lm_head.weight = head.tok_emb.weight if output is None else nn.Parameter(output)
    head.lm_head.out_features = len(table)


def _keys_and_values(layer: nn.TransformerDecoderLayer, memory: Tensor) -> Tensor:
    """Return the keys and values [2, B, H, M, K] of ``memory`` [B, M, D] in cross-attention."""
    attention = layer.multihead_attn
    projected = _in_projection(attention, memory, first=1, parts=2)
    batch, count, width = memory.shape
    heads = attention.num_heads
    return projected.view(batch, count, 2, heads, width // heads).permute(2, 0, 3, 1, 4)


def _extend(
    layer: nn.TransformerDecoderLayer, x: Tensor, tokens: Tensor, memory: Tensor, position: int
) -> Tensor:
    """Compute what torch's layer does in eval mode for a causal mask, over kept keys and values.

    Maps tokens [R, T, D] from ``position`` on, adding them to ``tokens`` [2, R, H, T_max, K].
    ``memory`` [2, B, H, M, K] is ``_keys_and_values``'s. T is 1, or ``position`` is 0.
    """
    x = x + _attend_text(layer.self_attn, layer.norm1(x), tokens, position)
    x = x + _attend_memory(layer.multihead_attn, layer.norm2(x), memory)
    activation = layer.activation
    mapped: Tensor = x + layer.linear2(activation(layer.linear1(layer.norm3(x))))
    return mapped


def _attend_text(
    attention: nn.MultiheadAttention, x: Tensor, tokens: Tensor, position: int
) -> Tensor:
    count = x.shape[1]
    projected = _in_projection(attention, x, first=0, parts=3)
    q, k, v = split_heads(projected, 3, attention.num_heads)
    tokens[0, :, :, position : position + count] = k
    tokens[1, :, :, position : position + count] = v
    keys, values = tokens[:, :, :, : position + count]
    attended = F.scaled_dot_product_attention(q, keys, values, is_causal=count > 1)
    mapped: Tensor = attention.out_proj(merge_heads(attended))
    return mapped


def _attend_memory(attention: nn.MultiheadAttention, x: Tensor, memory: Tensor) -> Tensor:
    """Nothing is masked here, so an image's rows are no more than further queries."""
    q = _in_projection(attention, x, first=0, parts=1)
    (q,) = split_heads(q.view(memory.shape[1], -1, x.shape[-1]), 1, attention.num_heads)
    keys, values = memory
    if q.device.type == "cpu":
        # For few queries two matrix products are faster than the fused kernel.
        scores = (q * q.shape[-1] ** -0.5) @ keys.transpose(-2, -1)
        attended = scores.softmax(dim=-1) @ values
    else:
        attended = F.scaled_dot_product_attention(q, keys, values)
    mapped: Tensor = attention.out_proj(merge_heads(attended)).view_as(x)
    return mapped


def _in_projection(
    attention: nn.MultiheadAttention, x: Tensor, *, first: int, parts: int
) -> Tensor:
    """Map [.., D] to [.., parts * D] by the rows of q (0), k (1), v (2) from ``first`` on."""
    width = x.shape[-1]
    rows = slice(first * width, (first + parts) * width)
    return F.linear(x, attention.in_proj_weight[rows], attention.in_proj_bias[rows])
