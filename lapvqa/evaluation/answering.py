"""The question tasks' common judge: read questions, train heads, let them answer, publish."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from lapvqa.datasets.questions import QuestionSet
from lapvqa.datasets.stored import StoredImages, open_stored
from lapvqa.evaluation import features, writing
from lapvqa.evaluation.evaluate import Evaluation
from lapvqa.evaluation.head_training import describe, train_heads
from lapvqa.evaluation.visual_tokens import stored_images
from lapvqa.evaluation.writing import TextSample, WritingHead
from lapvqa.heads.text import TextHead, of_size
from lapvqa.images.report_pairs import read_excluded
from lapvqa.job import Counts, Job
from lapvqa.params import QuestionParams
from lapvqa.schemas import ANSWER_PREDICTIONS

SPLITS = ("train", "validate", "test")

Row = dict[str, Any]


def judge(
    run: Evaluation[QuestionParams],
    *,
    head: type[TextHead],
    read: Callable[[Path, StoredImages], QuestionSet],
    type_column: str,
    pairs: bool,
) -> Counts:
    """Judge a set of encoders; raises SourceError, SplitLeakError, ConfigError.

    ``type_column``: the column that holds a question's type; ``pairs``: the question is about the
    image and the one before it.
    """
    params = run.params
    source = run.open_input()
    if source is None:
        return run.without_input()
    stored = open_stored(run.job, read_excluded(run.job.project))
    questions = read(source.folder, stored)
    rows: list[Row] = questions.table.to_pylist()
    splits = {split: [row for row in rows if row["split"] == split] for split in SPLITS}
    missing = [split for split in ("train", "test") if not splits[split]]
    if missing:
        return run.not_computed(
            f"{questions.name} has no {missing[0]} question about the images stored here"
        )
    extra = run.empty_extra()
    encoders = run.encoders.load()
    columns = ("image_key", "reference_key") if pairs else ("image_key",)
    writer = _writing_head(run.task.name, head, params, splits, columns, stored, run.job)
    heads = train_heads(writer, encoders, params.recipe, extra=extra, job=run.job)
    tables = [
        _predictions(system, splits["test"], answers, type_column=type_column, pairs=pairs)
        for system, answers in heads.predictions.items()
    ]
    protocol = {
        **questions.describe(),
        **features.describe(encoders),
        **heads.describe(),
        "answers_cut_in_training": writer.shortened,
        "prompt": "the question; the answer follows after a blank",
        "decoding": "greedy",
        "max_new_tokens": params.max_new_tokens,
        **describe(params.head, params.recipe),
        "validated_on": f"loss of at most {writing.VALIDATED} validation questions",
    }
    return run.publish(pa.concat_tables(tables), protocol)


def _writing_head(
    task: str,
    head: type[TextHead],
    params: QuestionParams,
    splits: Mapping[str, list[Row]],
    columns: tuple[str, ...],
    stored: StoredImages,
    job: Job,
) -> WritingHead:
    shown = {row["sample"]: _shown(row, columns) for rows in splits.values() for row in rows}
    keys = [key for images in shown.values() for key in images]
    images, numbers = stored_images(keys, stored, job.project)

    def samples(split: str) -> list[TextSample]:
        return [
            writing.as_sample(
                tuple(numbers[key] for key in shown[row["sample"]]), row["question"], row["answer"]
            )
            for row in splits[split]
        ]

    kind = of_size(head, **params.head.model_dump())
    return WritingHead(
        kind,
        images,
        *(samples(split) for split in SPLITS),
        max_length=kind.sizes.max_length,
        max_new_tokens=params.max_new_tokens,
        batch_size=params.recipe.batch_size,
        task=task,
    )


def _shown(row: Row, columns: tuple[str, ...]) -> list[str]:
    """Return the images that the head sees; a reference that is not here is the image itself."""
    return [row[column] or row["image_key"] for column in columns]


def _predictions(
    system: str, rows: list[Row], answers: list[str], *, type_column: str, pairs: bool
) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "sample": row["sample"],
                "patient": row["patient_key"],
                "system": system,
                "image": row["image_key"],
                "reference_image": row["reference_key"] if pairs else None,
                "reversed": row["reversed"] if pairs else None,
                "type": row[type_column],
                "question": row["question"],
                "reference": row["answer"],
                "hypothesis": answer,
            }
            for row, answer in zip(rows, answers, strict=True)
        ],
        schema=ANSWER_PREDICTIONS,
    )
