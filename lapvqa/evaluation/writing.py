"""Teach a head to write about images, and let it write: answers and reports alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import Tensor

from lapvqa.errors import ConfigError
from lapvqa.evaluation.visual_tokens import Vision
from lapvqa.heads import recipe as training
from lapvqa.heads.recipe import Fitted
from lapvqa.heads.teaching import Lesson, by_length, teach
from lapvqa.heads.text import TextHead
from lapvqa.heads.vocabulary import cut, restore
from lapvqa.networks.vocabulary import CutVocabulary
from lapvqa.params import RecipeParams
from lapvqa.text.bpe import EOT, encoding
from lapvqa.text.sections import normalise

VALIDATED = 512
"""Samples whose loss chooses the epoch: the first by key, and keys are hashes."""

T = TypeVar("T")

BATCH = 32
"""Texts written at a time; fixed, because the bits of a sum may depend on it."""


@dataclass(frozen=True)
class Sample:
    """One text about one image, or about two (current, reference): numbers of images, GPT-2 ids."""

    images: tuple[int, ...]
    prompt: list[int]
    text: list[int]


def as_sample(images: tuple[int, ...], prompt: str, text: str) -> Sample:
    """Encode prompt and text; the text begins with a blank, which sets it apart from the prompt."""
    bpe = encoding()
    return Sample(images, bpe.encode_ordinary(prompt), bpe.encode_ordinary(f" {text}"))


@dataclass(frozen=True)
class Lessons:
    """Samples to learn from and to choose the epoch by.

    ``shortened``: how many texts were cut at the head's positions.
    """

    train: list[Sample]
    validate: list[Sample]
    shortened: int


def prepare(
    head: TextHead,
    train: Sequence[Sample],
    validate: Sequence[Sample],
    test: Sequence[Sample],
    *,
    max_new_tokens: int,
    name: str,
) -> Lessons:
    """Cut texts that are too long; ConfigError if a prompt leaves too little place to write."""
    longest = max(len(one.prompt) for one in (*train, *validate, *test))
    if longest + max_new_tokens > head.max_length:
        raise ConfigError(
            f"evaluate.{name}.max_new_tokens is {max_new_tokens}, prompts have up to {longest} "
            f"tokens, and the head has {head.max_length} positions",
            hint=f"set evaluate.{name}.max_new_tokens to at most {head.max_length - longest}",
        )
    whole = [*train, *validate[:VALIDATED]]
    cuts = [_shorten(one, head.max_length) for one in whole]
    shortened = sum(len(new.text) < len(old.text) for new, old in zip(cuts, whole, strict=True))
    return Lessons(cuts[: len(train)], cuts[len(train) :], shortened)


def _shorten(sample: Sample, positions: int) -> Sample:
    return Sample(sample.images, sample.prompt, sample.text[: positions - 1 - len(sample.prompt)])


def learn(
    head: TextHead,
    vision: Vision,
    lessons: Lessons,
    recipe: RecipeParams,
    progress: Callable[[int, int], None],
) -> Fitted:
    """Train the head in place by teacher forcing; the validation loss chooses the epoch.

    Only tokens that occur take part until the end (see ``lapvqa.heads.vocabulary``).
    """
    everything = (*lessons.train, *lessons.validate)
    words = cut(head, [[EOT, *one.prompt, *one.text] for one in everything])
    head.to(vision.device)

    def loss(samples: Sequence[Sample]) -> Tensor:
        return head.teacher_forcing(
            _memory(head, vision, samples), _lesson(head, samples, words, vision)
        )

    @torch.no_grad()
    def score() -> float:
        total = sum(
            float(loss(some)) * len(some) for some in _pieces(lessons.validate, recipe.batch_size)
        )
        return -total / len(lessons.validate)

    fitted = training.fit(
        head,
        lambda numbers: loss([lessons.train[one] for one in numbers]),
        len(lessons.train),
        recipe=recipe,
        score=score if lessons.validate else None,
        encoder=vision.trained,
        progress=progress,
    )
    restore(head, words)
    return fitted


@torch.no_grad()
def write(
    head: TextHead, vision: Vision, samples: Sequence[Sample], *, max_new_tokens: int
) -> list[str]:
    """Return the text that the head writes for each sample, greedily; white space collapsed."""
    head.to(vision.device).eval()
    bpe = encoding()
    texts = [""] * len(samples)
    for rows, _ in by_length([one.prompt for one in samples]):
        for some in _pieces(rows, BATCH):
            chosen = [samples[row] for row in some]
            prompts = torch.tensor([one.prompt for one in chosen], dtype=torch.long)
            written = head.write(
                _memory(head, vision, chosen),
                prompts.reshape(len(chosen), -1).to(vision.device),
                bos_id=EOT,
                eos_id=EOT,
                max_new_tokens=max_new_tokens,
            )
            for row, ids in zip(some, written, strict=True):
                texts[row] = normalise(bpe.decode(ids))
    return texts


def _memory(head: TextHead, vision: Vision, samples: Sequence[Sample]) -> Tensor:
    """Return what the head reads: tokens of the first images, then those of the second, if any."""
    columns = zip(*(one.images for one in samples), strict=True)
    memory = cast("Callable[..., Tensor]", head.memory)  # one argument per image
    return memory(*(vision.tokens(column) for column in columns))


def _lesson(
    head: TextHead, samples: Sequence[Sample], words: CutVocabulary, vision: Vision
) -> Lesson:
    lesson = teach(
        [one.prompt for one in samples],
        [one.text for one in samples],
        bos_id=EOT,
        eos_id=EOT,
        max_length=head.max_length,
    )
    numbered = Lesson(words.number(lesson.token_ids), words.number(lesson.targets))
    return numbered.to(vision.device)


def _pieces(values: Sequence[T], size: int) -> list[Sequence[T]]:
    return [values[start : start + size] for start in range(0, len(values), size)]
