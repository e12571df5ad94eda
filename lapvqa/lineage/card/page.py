"""A page: headings, paragraphs and tables whose cells are words or facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lapvqa.lineage.card.fact import Fact

NOT_RECORDED, UNDEFINED = "not recorded", "undefined"

Piece = str | Fact
"""Words of the page itself, which hold no number, or a fact."""

Cell = Piece | None
"""None is shown as "not recorded"."""


@dataclass(frozen=True)
class Heading:
    """A heading of level 1 to 3."""

    level: int
    text: Cell


@dataclass(frozen=True)
class Paragraph:
    """Pieces in a row."""

    pieces: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """Rows of cells below the names of the columns."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


Block = Heading | Paragraph | Table


@dataclass(frozen=True)
class Result:
    """A metric for the model-index: of which task, with the ends of its interval."""

    task: Fact
    kind: str
    """Hugging Face's name of the kind of task."""
    metric: Fact
    value: Fact
    low: Fact | None
    high: Fact | None
    samples: Fact | None
    """Digest of the test set's samples."""


@dataclass(frozen=True)
class Card:
    """A model card: its name, results for the model-index, and the page."""

    name: Fact
    results: tuple[Result, ...]
    blocks: tuple[Block, ...]


def paragraph(*pieces: Cell) -> Paragraph:
    """Return a paragraph."""
    return Paragraph(pieces)


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[Block]:
    """Return a table, or a paragraph that says that there is nothing."""
    if not rows:
        return [paragraph(NOT_RECORDED.capitalize() + ".")]
    return [Table(tuple(columns), tuple(map(tuple, rows)))]
