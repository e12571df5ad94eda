"""A few reports as the model writes them, epoch by epoch, for a person to look at.

They stay in the working folder: a model may repeat a report that it has learnt by heart.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lapvqa.images.report_pairs import read_batch
from lapvqa.networks.decoder import MAX_LENGTH, CaptionDecoder
from lapvqa.networks.device import Computer
from lapvqa.networks.generation import BEGIN, continue_prompts
from lapvqa.text.bpe import encoding

if TYPE_CHECKING:
    from lapvqa.pretrain.trainer import Trainer

SAMPLES_FILE = "samples.jsonl"


def append(trainer: Trainer, path: Path) -> None:
    """Add what the model now writes for the first studies of validate, beside their reports.

    Does nothing for a model that does not write. Every process must call this. A resumed run may
    repeat an epoch's line.
    """
    count = trainer.params.samples
    pairs = trainer.corpus.validate[:count] or trainer.corpus.train[:count]
    if not trainer.model.writes:
        return
    trainer.model.eval()
    inputs = trainer.preparer.for_validation(
        read_batch(pairs, range(len(pairs)), trainer.corpus.store)
    )
    begin = int(trainer.vocabulary.number(torch.tensor(BEGIN)))
    longest = max(len(pair.token_ids) for pair in trainer.corpus.train)

    def search(decoder: CaptionDecoder, visual: Tensor) -> list[list[int]]:
        return continue_prompts(
            decoder, visual, torch.full((len(pairs), 1), begin, device=visual.device),
            max_new_tokens=min(longest, MAX_LENGTH - 1), end=begin,
        )  # fmt: skip

    with Computer(trainer.device, trainer.attention).inference():
        written = trainer.objective.write(inputs.images, search)
    if not trainer.world.is_main:
        return
    decode = encoding().decode
    samples = [
        {
            "generated": decode(trainer.vocabulary.spell(numbers)),
            "report": decode(pair.token_ids[1:-1].tolist()),
        }
        for numbers, pair in zip(written, pairs, strict=True)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as handle:
        handle.write(json.dumps({"step": trainer.progress.step, "samples": samples}) + "\n")
