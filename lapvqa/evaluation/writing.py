"""Heads that write about images: taught by teacher forcing, then asked for answers or reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import Tensor

from lapvqa.errors import ConfigError
from lapvqa.evaluation.head_training import TaskHead
from lapvqa.evaluation.visual_tokens import NumberedImages, TokenKind, VisualTokens
from lapvqa.heads.teaching import Lesson, by_length, teach
from lapvqa.heads.text import TextHead, cut_vocabulary, restore_vocabulary
from lapvqa.networks.vocabulary import CutVocabulary
from lapvqa.text.bpe import EOT, encoding
from lapvqa.text.sections import normalise

VALIDATED = 512
"""Samples whose loss chooses the epoch: the first by key, and keys are hashes."""

V = TypeVar("V")


@dataclass(frozen=True)
class TextSample:
    """One text about one image, or about two (current, reference): numbers of images, GPT-2 ids."""

    images: tuple[int, ...]
    prompt: list[int]
    text: list[int]


def as_sample(images: tuple[int, ...], prompt: str, text: str) -> TextSample:
    """Encode prompt and text; the text begins with a blank, which sets it apart from the prompt."""
    bpe = encoding()
    return TextSample(images, bpe.encode_ordinary(prompt), bpe.encode_ordinary(f" {text}"))


class WritingHead(TaskHead[TextHead, list[str]]):
    """A head that writes, of the class ``kind``; only tokens that occur take part in training.

    ``task`` names the section of ``evaluate`` whose ``max_new_tokens`` it is. ``shortened``: how
    many texts were cut at the head's positions. Raises ConfigError if a prompt leaves too little
    place to write.
    """

    token_kind: TokenKind = "pooled"

    def __init__(
        self,
        kind: Callable[[int], TextHead],
        images: NumberedImages,
        train: Sequence[TextSample],
        validate: Sequence[TextSample],
        test: Sequence[TextSample],
        *,
        max_length: int,
        max_new_tokens: int,
        batch_size: int,
        task: str,
    ) -> None:
        longest = max(len(sample.prompt) for sample in (*train, *validate, *test))
        if longest + max_new_tokens > max_length:
            raise ConfigError(
                f"evaluate.{task}.max_new_tokens is {max_new_tokens}, prompts have up to {longest} "
                f"tokens, and the head has {max_length} positions",
                hint=f"set evaluate.{task}.max_new_tokens to at most {max_length - longest}",
            )
        whole = [*train, *validate[:VALIDATED]]
        cut = [_shorten(sample, max_length) for sample in whole]
        self.shortened = sum(
            len(new.text) < len(old.text) for new, old in zip(cut, whole, strict=True)
        )
        self.kind, self.images = kind, images
        self.max_new_tokens, self._batch_size = max_new_tokens, batch_size
        self._train, self._validate, self._test = cut[: len(train)], cut[len(train) :], test
        self.num_train, self.num_validate = len(self._train), len(self._validate)
        self._words: CutVocabulary | None = None

    def make(self, width: int) -> TextHead:
        """Return a new head, cut to the tokens that occur."""
        head = self.kind(width)
        samples = (*self._train, *self._validate)
        self._words = cut_vocabulary(
            head, [[EOT, *sample.prompt, *sample.text] for sample in samples]
        )
        return head

    def loss(self, head: TextHead, tokens: VisualTokens, numbers: Sequence[int]) -> Tensor:
        """Return the mean cross-entropy of the texts' tokens."""
        return self._loss(head, tokens, [self._train[number] for number in numbers])

    def reads(self, numbers: Sequence[int]) -> list[Sequence[int]]:
        """Return the first images of the samples, then the second ones, if any."""
        return _columns([self._train[number] for number in numbers])

    def score(self, head: TextHead, tokens: VisualTokens) -> float:
        """Return minus the validation loss."""
        total = sum(
            float(self._loss(head, tokens, part)) * len(part)
            for part in _parts(self._validate, self._batch_size)
        )
        return -total / len(self._validate)

    def finish(self, head: TextHead) -> None:
        """Give the head tables of all tokens again."""
        assert self._words is not None
        restore_vocabulary(head, self._words)

    def predict(self, head: TextHead, tokens: VisualTokens) -> list[str]:
        """Return the text that the head writes for each test sample."""
        return self.write(head, tokens, self._test)

    def write(
        self, head: TextHead, tokens: VisualTokens, samples: Sequence[TextSample]
    ) -> list[str]:
        """Return a text for each sample, greedily; white space collapsed."""
        return write(head, tokens, samples, max_new_tokens=self.max_new_tokens)

    def _loss(self, head: TextHead, tokens: VisualTokens, samples: Sequence[TextSample]) -> Tensor:
        assert self._words is not None
        lesson = teach(
            [sample.prompt for sample in samples],
            [sample.text for sample in samples],
            bos_id=EOT,
            eos_id=EOT,
            max_length=head.max_length,
        )
        numbered = Lesson(self._words.number(lesson.token_ids), self._words.number(lesson.targets))
        memory = _memory(head, tokens, samples)
        return head.teacher_forcing(memory, numbered.to(tokens.computer.device))


def write(
    head: TextHead, tokens: VisualTokens, samples: Sequence[TextSample], *, max_new_tokens: int
) -> list[str]:
    """Return the text that ``head`` writes for each sample, greedily; white space collapsed."""
    computer = tokens.computer
    head.to(computer.device).eval()
    bpe = encoding()
    texts = [""] * len(samples)
    for rows, _ in by_length([sample.prompt for sample in samples]):
        for part in _parts(rows, computer.rows()):
            chosen = [samples[row] for row in part]
            prompts = torch.tensor([sample.prompt for sample in chosen], dtype=torch.long)
            written = head.write(
                _memory(head, tokens, chosen),
                computer.put(prompts.reshape(len(chosen), -1)),
                bos_id=EOT,
                eos_id=EOT,
                max_new_tokens=max_new_tokens,
            )
            for row, ids in zip(part, written, strict=True):
                texts[row] = normalise(bpe.decode(ids))
    return texts


def _shorten(sample: TextSample, positions: int) -> TextSample:
    text = sample.text[: positions - 1 - len(sample.prompt)]
    return TextSample(sample.images, sample.prompt, text)


def _memory(head: TextHead, tokens: VisualTokens, samples: Sequence[TextSample]) -> Tensor:
    """Return what the head reads: tokens of the first images, then those of the second, if any."""
    memory = cast("Callable[..., Tensor]", head.memory)  # one argument per image
    return memory(*(tokens.of(column) for column in _columns(samples)))


def _columns(samples: Sequence[TextSample]) -> list[Sequence[int]]:
    return list(zip(*(sample.images for sample in samples), strict=True))


def _parts(values: Sequence[V], size: int) -> list[Sequence[V]]:
    return [values[start : start + size] for start in range(0, len(values), size)]
