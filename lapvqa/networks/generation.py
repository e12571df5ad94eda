"""Write captions: the encoder runs once, keys and values are kept, finished captions leave.

Greedy search or beam search; both write what transformers' ``generate`` writes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lapvqa.networks.beam import beam_search
from lapvqa.networks.decoder import Cache, TextDecoder, close_gaps
from lapvqa.pretrain.model import CaptioningModel

BEGIN = END = 50256
"""<|endoftext|> of GPT-2, on both sides of a report."""


def generate(
    model: CaptioningModel,
    images: Tensor,
    *,
    max_new_tokens: int,
    num_beams: int = 1,
    length_penalty: float = 1.0,
) -> list[list[int]]:
    """Return the captions of images [B, 1 or 3, S, S], without begin and end.

    As ``continue_prompts``, from the prompt 50256. The model should be in eval mode.
    """
    with torch.no_grad():
        visual = model.vision_encoder(images)
    return continue_prompts(
        model.decoder,
        visual,
        torch.full((len(images), 1), BEGIN, device=images.device),
        max_new_tokens=max_new_tokens,
        num_beams=num_beams,
        length_penalty=length_penalty,
    )


@torch.no_grad()
def continue_prompts(
    decoder: TextDecoder,
    visual: Tensor,
    prompt_ids: Tensor,
    *,
    max_new_tokens: int,
    end: int = END,
    num_beams: int = 1,
    length_penalty: float = 1.0,
) -> list[list[int]]:
    """Return what follows each prompt [B, Q >= 1], given visual tokens [B, M, visual width].

    Neither prompt nor ``end`` is returned. A text ends at ``end`` or after ``max_new_tokens``.
    ``num_beams`` = 1 takes the most likely token at each place; more keep that many texts and
    return the one of highest log-probability / length ** ``length_penalty``. All prompts are Q
    tokens long; there is no padding. Rows do not influence each other.
    Raises ValueError for numbers out of range and for more tokens than the decoder has positions.
    """
    _check(decoder, visual, prompt_ids, max_new_tokens, end, num_beams)
    if not len(prompt_ids):
        return []
    cache = decoder.start(visual, prompt_ids.shape[1] + max_new_tokens - 1)
    logits = decoder.extend(prompt_ids, cache)
    if num_beams == 1:
        return _greedy_search(decoder, cache, logits, max_new_tokens, end)
    return beam_search(
        decoder,
        cache,
        logits,
        num_beams=num_beams,
        max_new_tokens=max_new_tokens,
        end=end,
        length_penalty=length_penalty,
    )


def _greedy_search(
    decoder: TextDecoder, cache: Cache, logits: Tensor, max_new_tokens: int, end: int
) -> list[list[int]]:
    """Take the most likely token until every row has ended; ``logits`` [B, V] of the first."""
    texts: list[list[int]] = [[] for _ in range(len(logits))]
    rows = list(range(len(logits)))  # which text each row of the cache writes
    for count in range(1, max_new_tokens + 1):
        chosen = logits.argmax(dim=-1).tolist()
        open_rows = [row for row, token_id in enumerate(chosen) if token_id != end]
        for row in open_rows:
            texts[rows[row]].append(chosen[row])
        if not open_rows or count == max_new_tokens:
            break
        order = close_gaps(open_rows)
        cache.reorder(order, order)
        rows = [rows[row] for row in order]
        token_ids = torch.tensor([[chosen[row]] for row in order], device=logits.device)
        logits = decoder.extend(token_ids, cache)
    return texts


def _check(
    decoder: TextDecoder,
    visual: Tensor,
    prompt_ids: Tensor,
    max_new_tokens: int,
    end: int,
    num_beams: int,
) -> None:
    """Raise ValueError for arguments that have no answer."""
    prompt_length = prompt_ids.shape[1]
    if len(visual) != len(prompt_ids) or not prompt_length:
        raise ValueError(
            f"expected a prompt of 1 or more tokens for each of {len(visual)} images, "
            f"found {list(prompt_ids.shape)}"
        )
    limit = decoder.max_length + 1 - prompt_length
    if not 1 <= max_new_tokens <= limit:
        raise ValueError(f"max_new_tokens is {max_new_tokens}, expected 1..{limit} (positions)")
    if not 1 <= num_beams <= decoder.vocabulary // 2:
        raise ValueError(f"num_beams is {num_beams}, expected 1..{decoder.vocabulary // 2}")
    highest = max(end, int(prompt_ids.max())) if len(prompt_ids) else end
    if highest >= decoder.vocabulary:
        raise ValueError(f"token {highest} is not in the table of {decoder.vocabulary} tokens")
