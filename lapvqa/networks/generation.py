"""Write captions: the encoder runs once, keys and values are kept, finished captions leave.

Greedy search or beam search; both write what transformers' ``generate`` writes (for beams, with
``early_stopping=False``). In beam search B images, n beams, R = B * n rows, V tokens in the
vocabulary, t tokens written so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lapvqa.networks.decoder import Cache, CaptionDecoder, TextDecoder, close_gaps
from lapvqa.networks.encoder import VisionEncoder

BEGIN = END = 50256
"""<|endoftext|> of GPT-2, on both sides of a report."""


class Captioner(Protocol):
    """A model that writes reports, such as ``lapvqa.pretrain.model.CaptioningModel``."""

    @property
    def vision_encoder(self) -> VisionEncoder:
        """Images to visual tokens."""

    @property
    def decoder(self) -> CaptionDecoder:
        """Visual tokens to text."""


def generate(
    model: Captioner,
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
    return _beam_search(
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


@dataclass
class _Beams:
    """The unfinished texts of each image, and the best of its finished ones.

    ``scores`` [B, n] log-probabilities, highest first (one column before the first token);
    ``token_ids`` [B, n, t]; ``finished`` [B, n] the highest scores of finished texts by length,
    -inf where fewer are finished; ``best_ids`` [B, t_max] the best of them, filled up with ``end``.
    """

    scores: Tensor
    token_ids: Tensor
    finished: Tensor
    best_ids: Tensor

    def take(self, images: Tensor) -> None:
        """Keep ``images``, in this order."""
        self.scores, self.token_ids = self.scores[images], self.token_ids[images]
        self.finished, self.best_ids = self.finished[images], self.best_ids[images]


def _beam_search(
    decoder: TextDecoder,
    cache: Cache,
    logits: Tensor,
    *,
    num_beams: int,
    max_new_tokens: int,
    end: int,
    length_penalty: float,
) -> list[list[int]]:
    """Return the best text of each image; ``logits`` [B, V] are those of the first token.

    A text's score is its log-probability / length ** ``length_penalty``, ``end`` counted. An
    image is done when its n best finished texts all score higher than its best beam would if it
    ended now: for a penalty above 0 a longer text might still win, as in transformers.
    """
    batch, device = len(logits), logits.device
    beams = _Beams(
        scores=torch.zeros(batch, 1, device=device),
        token_ids=torch.empty(batch, 1, 0, dtype=torch.long, device=device),
        finished=torch.full((batch, num_beams), -torch.inf, device=device),
        best_ids=torch.full((batch, max_new_tokens), end, device=device),
    )
    texts: list[list[int]] = [[] for _ in range(batch)]
    images = list(range(batch))  # which text each image of the cache has
    for count in range(1, max_new_tokens + 1):
        norm = count**length_penalty
        parents = _advance(beams, logits, norm, end=end, last=count == max_new_tokens)
        is_open = (beams.scores[:, 0] / norm > beams.finished.amin(dim=1)).tolist()
        open_images = [place for place, still in enumerate(is_open) if still]
        if len(open_images) < len(images):
            for place, text in enumerate(beams.best_ids.tolist()):
                if not is_open[place]:
                    texts[images[place]] = text[: text.index(end)] if end in text else text
        if not open_images:
            break
        if count == 1:
            cache.fan_out(num_beams)
        order = close_gaps(open_images)
        rows = [place * num_beams + parent for place in order for parent in parents[place]]
        cache.reorder(rows, order)
        if len(order) < len(images):
            beams.take(torch.tensor(order, device=device))
            images = [images[place] for place in order]
        logits = decoder.extend(beams.token_ids[:, :, -1].reshape(-1, 1), cache)
    return texts


def _advance(
    beams: _Beams, logits: Tensor, norm: float, *, end: int, last: bool
) -> list[list[int]]:
    """Continue the beams by one token of ``logits`` [R, V]; return the beam each comes from.

    Of the 2 n best continuations those among the first n that end are finished, and the best n
    that do not end go on: n always remain, since a beam has one way to end. In the ``last`` step
    all end.
    """
    num_beams, vocabulary = beams.finished.shape[1], logits.shape[1]
    log_probs = logits.float().log_softmax(dim=-1).view(*beams.scores.shape, vocabulary)
    totals = (beams.scores.unsqueeze(-1) + log_probs).flatten(1)
    scores, index = totals.topk(2 * num_beams)
    parents, new_ids = index // vocabulary, index % vocabulary
    written = torch.cat([_choose(beams.token_ids, parents), new_ids.unsqueeze(-1)], dim=-1)
    ends = torch.full_like(new_ids, last, dtype=torch.bool) | (new_ids == end)
    _finish(beams, (scores / norm).masked_fill(~ends, -torch.inf)[:, :num_beams], written)
    beams.scores, kept = scores.masked_fill(ends, -torch.inf).topk(num_beams)
    beams.token_ids = _choose(written, kept)
    chosen: list[list[int]] = parents.gather(1, kept).tolist()
    return chosen


def _finish(beams: _Beams, scores: Tensor, written: Tensor) -> None:
    """Add texts ``written`` [B, >= n, t] with ``scores`` [B, n], -inf for those not finished."""
    best, place = scores.max(dim=1, keepdim=True)
    better = best > beams.finished.amax(dim=1, keepdim=True)
    length = written.shape[-1]
    candidates = _choose(written, place).squeeze(1)
    beams.best_ids[:, :length] = torch.where(better, candidates, beams.best_ids[:, :length])
    merged = torch.cat([beams.finished, scores], dim=1)
    beams.finished = merged.topk(beams.finished.shape[1]).values


def _choose(token_ids: Tensor, places: Tensor) -> Tensor:
    """Return the texts [B, m, t] at ``places`` [B, m] of ``token_ids`` [B, n, t]."""
    index = places.unsqueeze(-1).expand(-1, -1, token_ids.shape[-1])
    return token_ids.gather(1, index)


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
