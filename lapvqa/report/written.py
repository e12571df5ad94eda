"""Example reports: the image, the reference and what each system wrote, with their findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from lapvqa.report.choice import Row, choose, rows_by_sample, systems_of
from lapvqa.report.pixels import Archive, Picture
from lapvqa.rrg.labeler import FINDINGS, NO_FINDING, Assertion, find, mentions

RULE = (
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
class Written:
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
    written: list[Written]
    not_looked_for: list[str]
    """Known of the study, but nothing the labeler has words for."""
    truth_from: str


def report_examples(predictions: pa.Table, archive: Archive, *, count: int) -> list[ReportExample]:
    """Return ``count`` studies of RRG_PREDICTIONS, chosen by the rule."""
    first = predictions.filter(pc.equal(predictions["system"], systems_of(predictions)[0]))
    groups = ((row["sample"], _group(row)) for row in first.to_pylist())
    chosen = rows_by_sample(predictions, choose(groups, count))
    pictures = archive.of_studies(chosen)
    return [_example(name, rows, pictures[name]) for name, rows in chosen.items()]


def _group(row: Row) -> str:
    return _WELL if NO_FINDING in _truth(row) else _ILL


def _truth(row: Row) -> frozenset[str]:
    """Return the findings of a study: as the archive labels it, else as its reference says."""
    if row["truth"] is None:
        return find(row["reference"])
    known = frozenset(row["truth"]) - {NO_FINDING}
    # As the labeler has it: devices are no disease.
    return known if known - {_DEVICES} else known | {NO_FINDING}


def _example(name: str, rows: Mapping[str, Row], picture: Picture | None) -> ReportExample:
    row = next(iter(rows.values()))
    truth, looked_for = _truth(row), frozenset({*FINDINGS, NO_FINDING})
    written = [
        _written(system, one["hypothesis"], truth & looked_for) for system, one in rows.items()
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


def _written(system: str, text: str, truth: frozenset[str]) -> Written:
    asserted = find(text)
    right, invented = sorted(truth & asserted), sorted(asserted - truth)
    signs = {**dict.fromkeys(right, "right"), **dict.fromkeys(invented, "invented")}
    return Written(system, mark(text, signs), right, sorted(truth - asserted), invented)


def mark(text: str, signs: Mapping[str, str]) -> list[Piece]:
    """Cut a text at the words that assert a label of ``signs``; of words that overlap the first."""
    pieces: list[Piece] = []
    end = 0
    for one in mentions(text):
        if one.assertion is Assertion.POSITIVE and one.label in signs and one.start >= end:
            pieces.append(Piece(text[end : one.start]))
            pieces.append(Piece(text[one.start : one.end], signs[one.label]))
            end = one.end
    pieces.append(Piece(text[end:]))
    return [piece for piece in pieces if piece.words]
