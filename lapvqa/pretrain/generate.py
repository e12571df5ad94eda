"""Write captions greedily: the encoder runs once, keys and values are kept, done rows leave."""

from __future__ import annotations

import torch
from torch import Tensor

from lapvqa.pretrain.decoder import LayerCache
from lapvqa.pretrain.model import CaptioningModel

BEGIN = END = 50256
"""<|endoftext|> of GPT-2, on both sides of a report."""


@torch.no_grad()
def generate(model: CaptioningModel, images: Tensor, *, max_new_tokens: int) -> list[list[int]]:
    """Return the most likely next tokens of images [B, 1 or 3, S, S], without begin and end.

    A caption ends at 50256 or after ``max_new_tokens``; ValueError if the decoder has fewer
    positions. The model should be in eval mode.
    """
    decoder = model.decoder
    if not 1 <= max_new_tokens <= decoder.max_length:
        raise ValueError(
            f"max_new_tokens is {max_new_tokens}, expected 1..{decoder.max_length} (positions)"
        )
    captions: list[list[int]] = [[] for _ in range(len(images))]
    caches = decoder.start(model.vision_encoder(images), max_new_tokens)
    rows = list(range(len(images)))  # which caption each row of the batch writes
    token_ids = torch.full((len(images),), BEGIN, device=images.device)
    for position in range(max_new_tokens):
        token_ids = decoder.step(token_ids, caches, position).argmax(dim=-1)
        chosen = token_ids.tolist()
        for row, token_id in zip(rows, chosen, strict=True):
            if token_id != END:
                captions[row].append(token_id)
        open_rows = [index for index, token_id in enumerate(chosen) if token_id != END]
        if not open_rows:
            break
        if len(open_rows) < len(rows):
            rows = [rows[index] for index in open_rows]
            token_ids, caches = _take(token_ids, caches, open_rows)
    return captions


def _take(
    token_ids: Tensor, caches: list[LayerCache], rows: list[int]
) -> tuple[Tensor, list[LayerCache]]:
    """Keep these rows of the batch only."""
    index = torch.tensor(rows, device=token_ids.device)
    return token_ids[index], [cache.take(index) for cache in caches]
