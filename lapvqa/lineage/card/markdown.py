"""A card as Markdown with Hugging Face's model-index; each fact's place stands in a comment."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from lapvqa.lineage.card.fact import Fact
from lapvqa.lineage.card.page import NOT_RECORDED, Block, Card, Cell, Heading, Paragraph, Result

_SPECIAL = str.maketrans({"|": r"\|", "<": "&lt;", "\n": " "})

_MARK = "# @"
"""Begins a place in the front matter, and may begin nothing else."""


_FRONT = ("license: other", "library_name: lapvqa")


def render(card: Card, *, front: Sequence[str] = _FRONT, before: str = "") -> str:
    """Return the card as Markdown; ``front``: other metadata, ``before``: text before the card."""
    blocks = [line for block in card.blocks for line in _block(block)]
    return "\n".join([*_front_matter(card, front), before + "\n".join(blocks)]) + "\n"


def escaped(text: str) -> str:
    """Return a text as it stands in a cell of a table."""
    return text.translate(_SPECIAL).replace(_MARK, "# &commat;")


def quoted(text: str) -> str:
    """Return a text as a string of YAML."""
    return json.dumps(text, ensure_ascii=False).replace(_MARK, r"# \u0040")


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Heading):
        yield from (f"{'#' * block.level} {_cell(block.text)}", "")
    elif isinstance(block, Paragraph):
        yield from ("".join(map(_cell, block.pieces)), "")
    else:
        yield _row(block.columns)
        yield "|" + "---|" * len(block.columns)
        yield from map(_row, block.rows)
        yield ""


def _row(cells: tuple[Cell, ...]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(cell: Cell) -> str:
    if isinstance(cell, Fact):
        return f"{escaped(cell.text)}<!--@{cell.place}-->"
    return NOT_RECORDED if cell is None else cell


def _front_matter(card: Card, front: Sequence[str]) -> Iterator[str]:
    yield "---"
    yield from front
    yield "model-index:"
    yield f"- name: {_text(card.name)}"
    if card.results:
        yield "  results:"
    for result in card.results:
        yield from (f"  {line}" for line in _result(result))
    yield "---"
    yield ""


def _result(result: Result) -> Iterator[str]:
    yield "- task:"
    yield f"    type: {result.kind}"
    yield "  dataset:"
    yield f"    type: {_text(result.task)}"
    yield f"    name: {_text(result.task)}"
    if result.samples:
        yield f"    revision: {_text(result.samples)}"
    yield "  metrics:"
    yield f"  - type: {_text(result.metric)}"
    yield f"    value: {_number(result.value)}"
    if result.low and result.high:
        yield "    args:"
        yield f"      low: {_number(result.low)}"
        yield f"      high: {_number(result.high)}"


def _text(fact: Fact) -> str:
    return f"{quoted(fact.text)}  # @{fact.place}"


def _number(fact: Fact) -> str:
    return f"{fact.text}  # @{fact.place}"
