"""Train a head that writes on the tokens that occur: ``lapvqa.networks.vocabulary`` for heads.

``cut`` before training, ``restore`` after it: in between the head takes numbers of the cut
vocabulary, afterwards GPT-2 ids, and its file is in the published form with 50257 rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor, nn

from lapvqa.heads.text import TextHead
from lapvqa.networks.decoder import GPT2_VOCABULARY
from lapvqa.networks.vocabulary import CutVocabulary


def cut(head: TextHead, texts: Sequence[Sequence[int]]) -> CutVocabulary:
    """Cut the head's tables to the tokens of ``texts``, prompts and ends included.

    Raises ValueError for a head of another vocabulary, or one that is cut already.
    """
    _check(head, GPT2_VOCABULARY)
    words = CutVocabulary(np.array(text, dtype=np.uint16) for text in texts)
    _replace(head, words.rows_of(head.tok_emb.weight.detach()), _output(head, words.rows_of))
    head.log_count = words.log_count
    return words


def restore(head: TextHead, words: CutVocabulary) -> None:
    """Give a cut head tables of all 50257 rows again; ValueError unless ``words`` are its own."""
    _check(head, len(words))
    _replace(head, words.table_of(head.tok_emb.weight.detach()), _output(head, words.table_of))
    head.log_count = None


def _check(head: TextHead, vocabulary: int) -> None:
    if head.vocabulary != vocabulary:
        raise ValueError(f"expected a head of {vocabulary} tokens, found {head.vocabulary}")


def _output(head: TextHead, change: Callable[[Tensor], Tensor]) -> Tensor | None:
    """Return the changed table of the output layer; None if it is that of the input."""
    tied = head.lm_head.weight is head.tok_emb.weight
    return None if tied else change(head.lm_head.weight.detach())


def _replace(head: TextHead, table: Tensor, output: Tensor | None) -> None:
    head.tok_emb.weight, head.tok_emb.num_embeddings = nn.Parameter(table), len(table)
    head.lm_head.weight = head.tok_emb.weight if output is None else nn.Parameter(output)
    head.lm_head.out_features = len(table)
