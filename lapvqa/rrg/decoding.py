"""Reports that the model's own decoder writes, greedily; white space is collapsed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lapvqa.errors import ConfigError
from lapvqa.evaluation.features import rows_at_once
from lapvqa.evaluation.image_encoder import OwnEncoder
from lapvqa.evaluation.report_studies import ReportStudy
from lapvqa.images.shards import ShardStore
from lapvqa.images.transforms import to_input
from lapvqa.networks.device import Computer
from lapvqa.networks.generation import generate
from lapvqa.pretrain.model import CaptioningModel
from lapvqa.text.bpe import encoding
from lapvqa.text.sections import normalise


def decode_reports(
    model: CaptioningModel,
    studies: Sequence[ReportStudy],
    store: ShardStore,
    *,
    computer: Computer,
    max_new_tokens: int,
) -> Iterator[str]:
    """Yield the report that ``model`` writes for each study."""
    model.to(computer.device)
    size = rows_at_once(OwnEncoder(model.vision_encoder), computer)

    def read(batch: Sequence[ReportStudy]) -> NDArray[np.uint8]:
        return store.read([study.shard for study in batch], [study.row for study in batch])

    batches = [studies[start : start + size] for start in range(0, len(studies), size)]
    with closing(computer.ahead(read, batches)) as coming:
        for pixels in coming:
            yield from write_reports(
                model, pixels, computer=computer, max_new_tokens=max_new_tokens
            )


def write_reports(
    model: CaptioningModel, pixels: Tensor, *, computer: Computer, max_new_tokens: int
) -> list[str]:
    """Return the report that ``model`` writes for each stored image uint8 [k, 384, 384].

    Both are on the computer's device.

    Raises ConfigError for more tokens than the decoder has positions.
    """
    limit = model.decoder.max_length
    if max_new_tokens > limit:
        raise ConfigError(
            f"evaluate.rrg.max_new_tokens is {max_new_tokens}, the decoder has {limit} positions",
            hint=f"set evaluate.rrg.max_new_tokens to at most {limit}",
        )
    with computer.inference():
        images = to_input(pixels, model.vision_encoder.image_size)
        written = generate(model, images, max_new_tokens=max_new_tokens)
    return [normalise(encoding().decode(ids)) for ids in written]
