"""One loop that trains every task's heads: encoder by encoder, seed by seed.

A task says what its head is, what it loses, how its validation is scored and what it predicts
(``TaskHead``); tokens, seeds, the choice of the epoch and the files are the same for all.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import Tensor

from lapvqa.evaluation.image_encoder import ImageEncoder
from lapvqa.evaluation.visual_tokens import (
    NumberedImages,
    TokenKind,
    VisualTokens,
    open_visual_tokens,
)
from lapvqa.heads import checkpoint
from lapvqa.heads.head import Head
from lapvqa.heads.training import Fitted, fit
from lapvqa.job import Job
from lapvqa.metrics.replicates import head_name
from lapvqa.params import RecipeParams, Section

HEAD = "head.pt"
"""In extra/: the first head, in its published form."""

H = TypeVar("H", bound=Head)
T = TypeVar("T")


class TaskHead(ABC, Generic[H, T]):
    """A task's head and the samples that teach it; ``T``: what it predicts of the test samples.

    Every method is called as the device computes: in its precision, and without gradients but for
    ``loss``.
    ``num_train``: training samples, which the loss takes by number; ``num_validate``: without any
    the last epoch is kept.
    """

    images: NumberedImages
    token_kind: TokenKind
    num_train: int
    num_validate: int

    @abstractmethod
    def make(self, width: int) -> H:
        """Return a new head for tokens of this width; called under the recipe's seed."""

    @abstractmethod
    def loss(self, head: H, tokens: VisualTokens, numbers: Sequence[int]) -> Tensor:
        """Return the loss of training samples, a scalar."""

    @abstractmethod
    def reads(self, numbers: Sequence[int]) -> list[Sequence[int]]:
        """Return the images of which ``loss`` will ask the tokens, one entry for each time."""

    @abstractmethod
    def score(self, head: H, tokens: VisualTokens) -> float:
        """Return how good the head is on the validation samples; higher is better."""

    def finish(self, head: H) -> None:
        """Bring a trained head into its published form."""

    def file_scores(self, head: H, tokens: VisualTokens) -> dict[str, float]:
        """Return the validation scores that the published file holds (``head.form.scores``)."""
        return {}

    @abstractmethod
    def predict(self, head: H, tokens: VisualTokens) -> T:
        """Return the predictions of the test samples."""


@dataclass(frozen=True)
class TrainedHeads(Generic[T]):
    """Predictions and the course of the training of each head, by its name."""

    predictions: dict[str, T]
    fitted: dict[str, Fitted]

    def describe(self, prefix: str = "") -> dict[str, float | int | None]:
        """Return the course of each training, for a protocol."""
        facts: dict[str, float | int | None] = {}
        for name, fitted in self.fitted.items():
            facts |= fitted.describe(f"{prefix}{name}")
        return facts


def train_heads(
    task: TaskHead[H, T],
    encoders: Mapping[str, ImageEncoder],
    recipe: RecipeParams,
    *,
    extra: Path,
    job: Job,
) -> TrainedHeads[T]:
    """Train a head for each encoder and seed; the first one's files are written to ``extra``."""
    trained = TrainedHeads[T]({}, {})
    for name, encoder, chosen in _heads_to_train(encoders, recipe):
        head, tokens, fitted = _train(task, name, encoder, chosen, job)
        if not trained.predictions:
            _save(task, head, tokens, encoder.about, fitted, extra)
        with tokens.computer.inference():
            trained.predictions[name] = task.predict(head, tokens)
        trained.fitted[name] = fitted
    return trained


def describe(head: Section, recipe: RecipeParams) -> dict[str, Any]:
    """Return the head's sizes and its recipe, for a protocol."""
    return {
        **{f"head_{key}": value for key, value in head.model_dump().items()},
        **{f"recipe_{key}": value for key, value in recipe.model_dump().items()},
    }


def _heads_to_train(
    encoders: Mapping[str, ImageEncoder], recipe: RecipeParams
) -> Iterator[tuple[str, ImageEncoder, RecipeParams]]:
    """Yield name, encoder and recipe of each head.

    A native recipe trains a copy of the encoder, so that every head starts from the same.
    """
    for name, encoder in encoders.items():
        for number in range(recipe.seeds):
            chosen = recipe.model_copy(update={"seed": recipe.seed + number})
            own = copy.deepcopy(encoder) if recipe.encoder == "native" else encoder
            yield head_name(name, number), own, chosen


def _train(
    task: TaskHead[H, T], name: str, encoder: ImageEncoder, recipe: RecipeParams, job: Job
) -> tuple[H, VisualTokens, Fitted]:
    progress = partial(job.recorder.progress, note=name)
    tokens = open_visual_tokens(
        encoder, task.images, task.token_kind, recipe, job=job,
        progress=partial(progress, unit="images"),
    )  # fmt: skip
    computer = tokens.computer
    with computer.seeded(recipe.seed):  # the first weights are a function of the seed alone
        head = task.make(tokens.width)
    head.to(computer.device)
    with ThreadPoolExecutor(1, thread_name_prefix="tokens") as pool:
        fitted = fit(
            head,
            lambda numbers: task.loss(head, tokens, numbers),
            task.num_train,
            recipe=recipe,
            score=(lambda: task.score(head, tokens)) if task.num_validate else None,
            computer=computer,
            encoder=tokens.trained,
            expect=lambda numbers: tokens.expect(task.reads(numbers), pool),
            progress=partial(progress, unit="steps"),
        )
    task.finish(head)
    return head, tokens, fitted


def _save(
    task: TaskHead[H, T], head: H, tokens: VisualTokens, encoder: str, fitted: Fitted, extra: Path
) -> None:
    facts: dict[str, Any] = {}
    if not head.form.is_plain:
        with tokens.computer.inference():
            scores = task.file_scores(head, tokens)
        facts = {"encoder": encoder, "epoch": fitted.epoch, **scores}
    checkpoint.save(head, extra / HEAD, **facts)
    tokens.save_trained(extra)
