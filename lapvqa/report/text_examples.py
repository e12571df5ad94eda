"""Examples of what systems write: answers to questions, and reports with their findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from lapvqa.metrics.texts.short_answers import exact_match, token_f1
from lapvqa.report.examples import (
    ArchivePictures,
    Picture,
    Row,
    choose,
    rows_by_sample,
    systems_of,
)
from lapvqa.rrg.scoring import why_not_english
from lapvqa.text.labeler import FINDINGS, NO_FINDING, Assertion, find, mentions

ANSWER_RULE = (
    "Questions are chosen by rule, not by result: in the order of a hash of their key, one of "
    "each type in turn. Right is an answer equal to the reference after case, punctuation and "
    "articles are taken away; of a wrong one the F1 of its words says how near it is."
)


@dataclass(frozen=True)
class Answer:
    """One system's answer; ``shared``: F1 of its words and the reference's."""

    system: str
    text: str
    right: bool
    shared: float


@dataclass(frozen=True)
class ShownImage:
    """An image of a question; ``picture`` is None when its shard cannot be read."""

    title: str
    picture: Picture | None


@dataclass(frozen=True)
class AnswerExample:
    """A question about an image, or about two: the reference first."""

    name: str
    images: list[ShownImage]
    reversed: bool
    type: str
    question: str
    reference: str
    answers: list[Answer]


def answer_examples(
    predictions: pa.Table, archive: ArchivePictures, *, count: int
) -> list[AnswerExample]:
    """Return ``count`` questions of ANSWER_PREDICTIONS, chosen by the rule."""
    groups = zip(predictions["sample"].to_pylist(), predictions["type"].to_pylist(), strict=True)
    chosen = rows_by_sample(predictions, choose(groups, count))
    firsts = [next(iter(rows.values())) for rows in chosen.values()]
    keys = {row[column] for row in firsts for column in ("image", "reference_image")} - {None}
    pictures = archive.of_images(keys)
    return [
        _answer_example(number, rows, pictures)
        for number, rows in enumerate(chosen.values(), start=1)
    ]


def _answer_example(
    number: int, rows: Mapping[str, Row], pictures: Mapping[str, Picture | None]
) -> AnswerExample:
    row = next(iter(rows.values()))
    images = [ShownImage("Image", pictures[row["image"]])]
    if row["reference_image"] is not None:
        images = [
            ShownImage("Reference image", pictures[row["reference_image"]]),
            ShownImage("Image asked about", pictures[row["image"]]),
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
                answer["hypothesis"],
                exact_match(reference, answer["hypothesis"]) == 1,
                token_f1(reference, answer["hypothesis"]),
            )
            for system, answer in rows.items()
        ],
    )


REPORT_RULE = (
    "Studies are chosen by rule, not by result: in the order of a hash of their key, one with "
    "findings and one without in turn. Findings are read from the generated text by a word-based "
    "labeler, and compared with what is known of the study."
)

_DEVICES = "Support Devices"
_ILL, _WELL = "findings", "no findings"  # in the order of their turns


@dataclass(frozen=True)
class Piece:
    """Words of a text; ``sign``: right, missed, invented, or empty for words without a mark."""

    words: str
    sign: str = ""


@dataclass(frozen=True)
class WrittenReport:
    """One system's report, and its findings beside those known of the study."""

    system: str
    pieces: list[Piece]
    right: list[str]
    missed: list[str]
    invented: list[str]


@dataclass(frozen=True)
class ReportExample:
    """One test study; ``picture`` is None when its shard cannot be read.

    ``reference`` is marked as ``written[0]`` has it.
    """

    name: str
    picture: Picture | None
    reference: list[Piece]
    written: list[WrittenReport]
    not_looked_for: list[str]
    """Known of the study, but nothing the labeler has words for."""
    truth_from: str


def report_examples(
    predictions: pa.Table, archive: ArchivePictures, *, count: int
) -> list[ReportExample]:
    """Return ``count`` studies of RRG_PREDICTIONS, chosen by the rule."""
    first = predictions.filter(pc.equal(predictions["system"], systems_of(predictions)[0]))
    groups = ((row["sample"], _group(row)) for row in first.to_pylist())
    chosen = rows_by_sample(predictions, choose(groups, count))
    pictures = archive.of_studies(chosen)
    # The labeler reads English: in other languages it would find nothing, and call that health.
    looked_for = frozenset() if why_not_english(predictions) else frozenset({*FINDINGS, NO_FINDING})
    return [
        _report_example(name, rows, pictures[name], looked_for) for name, rows in chosen.items()
    ]


def _group(row: Row) -> str:
    return _WELL if NO_FINDING in _truth(row) else _ILL


def _truth(row: Row) -> frozenset[str]:
    """Return the findings of a study: as the archive labels it, else as its reference says."""
    if row["truth"] is None:
        return find(row["reference"])
    known = frozenset(row["truth"]) - {NO_FINDING}
    # As the labeler has it: devices are no disease.
    return known if known - {_DEVICES} else known | {NO_FINDING}


def _report_example(
    name: str, rows: Mapping[str, Row], picture: Picture | None, looked_for: frozenset[str]
) -> ReportExample:
    row = next(iter(rows.values()))
    truth = _truth(row) if looked_for or row["truth"] is not None else frozenset()
    written = [
        _written(system, report["hypothesis"], truth & looked_for, looked_for)
        for system, report in rows.items()
    ]
    signs = {
        **dict.fromkeys(written[0].right, "right"),
        **dict.fromkeys(written[0].missed, "missed"),
    }
    return ReportExample(
        name=name[:8],
        picture=picture,
        reference=mark(row["reference"], signs),
        written=written,
        not_looked_for=sorted(truth - looked_for),
        truth_from="the reference report" if row["truth"] is None else "the archive's labels",
    )


def _written(
    system: str, text: str, truth: frozenset[str], looked_for: frozenset[str]
) -> WrittenReport:
    asserted = find(text) & looked_for
    right, invented = sorted(truth & asserted), sorted(asserted - truth)
    signs = {**dict.fromkeys(right, "right"), **dict.fromkeys(invented, "invented")}
    return WrittenReport(system, mark(text, signs), right, sorted(truth - asserted), invented)


def mark(text: str, signs: Mapping[str, str]) -> list[Piece]:
    """Cut a text at the words that assert a label of ``signs``; of words that overlap the first."""
    pieces: list[Piece] = []
    end = 0
    for mention in mentions(text):
        if (
            mention.assertion is Assertion.POSITIVE
            and mention.label in signs
            and mention.start >= end
        ):
            pieces.append(Piece(text[end : mention.start]))
            pieces.append(Piece(text[mention.start : mention.end], signs[mention.label]))
            end = mention.end
    pieces.append(Piece(text[end:]))
    return [piece for piece in pieces if piece.words]
