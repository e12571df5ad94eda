"""What the two question tasks share: read, teach a head, let it answer, write predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from lapvqa.datasets.questions import QuestionSet
from lapvqa.datasets.stored import StoredImages, open_stored
from lapvqa.evaluation import answer_scoring, contract, features, writing
from lapvqa.evaluation.image_encoder import ImageEncoder
from lapvqa.evaluation.image_folder import open_folder
from lapvqa.evaluation.subject import Subject
from lapvqa.evaluation.visual_tokens import Vision, open_vision, seeded, stored_images
from lapvqa.evaluation.writing import Sample
from lapvqa.heads import checkpoint
from lapvqa.heads.text import TextHead, of_size
from lapvqa.job import Counts, Job
from lapvqa.params import BootstrapParams, QuestionParams
from lapvqa.schemas import ANSWER_PREDICTIONS

HEAD = "head.pt"

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class QuestionTask:
    """One set of questions.

    ``folder``: its name in ``inventory`` of params.yaml; ``absent``: what to say without it;
    ``type_column``: the column that holds a question's type; ``pairs``: the question is about the
    image and the one before it.
    """

    evaluation: contract.Evaluation
    head: type[TextHead]
    folder: str
    absent: str
    read: Callable[[Path, StoredImages], QuestionSet]
    type_column: str
    pairs: bool
    params: QuestionParams


def evaluation(task: str, primary: str) -> contract.Evaluation:
    """Return how answers are scored."""
    return contract.Evaluation(
        task=task,
        schema=ANSWER_PREDICTIONS,
        primary=primary,
        measure=answer_scoring.measure,
        curves=answer_scoring.curves,
        curve_columns=answer_scoring.CURVE_COLUMNS,
    )


def run(task: QuestionTask, subject: Subject, common: BootstrapParams, job: Job) -> Counts:
    """Write predictions, extra/head.pt, metrics and curves; raises SourceError, SplitLeakError."""
    folder = subject.folder(task.evaluation.task)
    source = open_folder(task.folder, job)
    if source is None:
        return contract.not_computed(task.evaluation, task.absent, folder=folder, common=common)
    extra = contract.empty_extra(folder)
    stored = open_stored(job)
    questions = task.read(source.folder, stored)
    rows: list[Row] = questions.table.to_pylist()
    of_split = {
        split: [row for row in rows if row["split"] == split]
        for split in ("train", "validate", "test")
    }
    missing = [split for split in ("train", "test") if not of_split[split]]
    if missing:
        reason = f"{questions.name} has no {missing[0]} question about the images stored here"
        return contract.not_computed(task.evaluation, reason, folder=folder, common=common)
    parts: list[pa.Table] = []
    facts: dict[str, Any] = {}
    encoders = subject.load()
    facts |= features.describe(encoders)
    for name, encoder, recipe in seeded(encoders, task.params.recipe):
        now = replace(task, params=task.params.model_copy(update={"recipe": recipe}))
        answered = _answer(now, name, encoder, of_split, stored, job)
        if not parts:
            checkpoint.save(answered.head, extra / HEAD)
            answered.vision.save_trained(extra)
        parts.append(_predictions(task, name, of_split["test"], answered.texts))
        facts |= answered.facts
    protocol = {
        **questions.describe(),
        **facts,
        "prompt": "the question; the answer follows after a blank",
        "decoding": "greedy",
        "max_new_tokens": task.params.max_new_tokens,
        **{f"head_{key}": value for key, value in task.params.head.model_dump().items()},
        **{f"recipe_{key}": value for key, value in task.params.recipe.model_dump().items()},
        "validated_on": f"loss of at most {writing.VALIDATED} validation questions",
    }
    return contract.publish(
        task.evaluation, pa.concat_tables(parts), protocol=protocol, folder=folder, common=common
    )


@dataclass(frozen=True)
class _Answered:
    """A trained head, what it saw, its answers to the test questions, facts for the protocol."""

    head: TextHead
    vision: Vision
    texts: list[str]
    facts: dict[str, Any]


def _answer(
    task: QuestionTask,
    name: str,
    encoder: ImageEncoder,
    of_split: Mapping[str, list[Row]],
    stored: StoredImages,
    job: Job,
) -> _Answered:
    """Train a head on one encoder and let it answer the test questions."""
    params = task.params
    columns = ("image_key", "reference_key") if task.pairs else ("image_key",)
    keys = [row[column] for rows in of_split.values() for row in rows for column in columns]
    images, numbers = stored_images(keys, stored, job.project)

    def samples(split: str) -> list[Sample]:
        return [
            writing.as_sample(
                tuple(numbers[row[column]] for column in columns), row["question"], row["answer"]
            )
            for row in of_split[split]
        ]

    def progress(done: int, total: int, *, unit: str) -> None:
        job.recorder.progress(done, total, unit=unit, note=name)

    vision = open_vision(
        encoder,
        images,
        "pooled",
        params.recipe,
        job=job,
        progress=partial(progress, unit="images"),
    )
    head = new_head(
        of_size(task.head, **params.head.model_dump()), vision.width, params.recipe.seed
    )
    test = samples("test")
    lessons = writing.prepare(
        head,
        samples("train"),
        samples("validate"),
        test,
        max_new_tokens=params.max_new_tokens,
        name=task.evaluation.task,
    )
    fitted = writing.learn(head, vision, lessons, params.recipe, partial(progress, unit="steps"))
    answers = writing.write(head, vision, test, max_new_tokens=params.max_new_tokens)
    facts = {**fitted.describe(name), "answers_cut_in_training": lessons.shortened}
    return _Answered(head, vision, answers, facts)


def new_head(kind: type[TextHead], width: int, seed: int) -> TextHead:
    """Return a head whose first weights are a function of the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(width)  # type: ignore[call-arg]


def _predictions(task: QuestionTask, system: str, rows: list[Row], answers: list[str]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "sample": row["sample"],
                "patient": row["patient_key"],
                "system": system,
                "image": row["image_key"],
                "reference_image": row["reference_key"] if task.pairs else None,
                "reversed": row["reversed"] if task.pairs else None,
                "type": row[task.type_column],
                "question": row["question"],
                "reference": row["answer"],
                "hypothesis": answer,
            }
            for row, answer in zip(rows, answers, strict=True)
        ],
        schema=ANSWER_PREDICTIONS,
    )
