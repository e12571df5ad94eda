"""Example questions: the image, or the two of a pair, and each system's answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from lapvqa.metrics.texts.short_answers import exact_match, token_f1
from lapvqa.report.choice import Row, choose, rows_by_sample
from lapvqa.report.pixels import Archive, Picture

RULE = (
    "Questions are chosen by rule, not by result: in the order of a hash of their key, one of "
    "each type in turn. Right is an answer equal to the reference after case, punctuation and "
    "articles are taken away; of a wrong one the F1 of its words says how near it is."
)


@dataclass(frozen=True)
class Answer:
    """What a system answered; ``shared``: F1 of its words and the reference's."""

    system: str
    text: str
    right: bool
    shared: float


@dataclass(frozen=True)
class Shown:
    """An image of a question; ``picture`` is None when its shard cannot be read."""

    title: str
    picture: Picture | None


@dataclass(frozen=True)
class AnswerExample:
    """A question about an image, or about two: the reference first."""

    name: str
    images: list[Shown]
    reversed: bool
    type: str
    question: str
    reference: str
    answers: list[Answer]


def answer_examples(predictions: pa.Table, archive: Archive, *, count: int) -> list[AnswerExample]:
    """Return ``count`` questions of ANSWER_PREDICTIONS, chosen by the rule."""
    groups = zip(predictions["sample"].to_pylist(), predictions["type"].to_pylist(), strict=True)
    chosen = rows_by_sample(predictions, choose(groups, count))
    firsts = [next(iter(rows.values())) for rows in chosen.values()]
    keys = {row[column] for row in firsts for column in ("image", "reference_image")} - {None}
    pictures = archive.of_images(keys)
    return [
        _example(number, rows, pictures) for number, rows in enumerate(chosen.values(), start=1)
    ]


def _example(
    number: int, rows: Mapping[str, Row], pictures: Mapping[str, Picture | None]
) -> AnswerExample:
    row = next(iter(rows.values()))
    images = [Shown("Image", pictures[row["image"]])]
    if row["reference_image"] is not None:
        images = [
            Shown("Reference image", pictures[row["reference_image"]]),
            Shown("Image asked about", pictures[row["image"]]),
        ]
    reference = row["reference"]
    return AnswerExample(
        name=str(number),
        images=images,
        reversed=bool(row["reversed"]),
        type=row["type"],
        question=row["question"],
        reference=reference,
        answers=[
            Answer(
                system,
                one["hypothesis"],
                exact_match(reference, one["hypothesis"]) == 1,
                token_f1(reference, one["hypothesis"]),
            )
            for system, one in rows.items()
        ],
    )
