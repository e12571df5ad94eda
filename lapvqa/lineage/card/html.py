"""A card as a page of HTML that needs nothing else; each fact's place stands in a comment."""

from __future__ import annotations

from html import escape
from itertools import chain

from lapvqa.lineage.card.fact import Fact
from lapvqa.lineage.card.page import NOT_RECORDED, Block, Card, Cell, Heading, Paragraph

_STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 0 0 1rem; display: block; overflow-x: auto; }
th, td { border: 1px solid color-mix(in srgb, currentColor 25%, transparent); padding: .2rem .6rem;
  text-align: left; vertical-align: top; }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.absent { opacity: .6; }
"""


def render(card: Card) -> str:
    """Return the card as HTML."""
    body = "\n".join(chain.from_iterable(map(_block, card.blocks)))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Model card</title>\n"
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def escaped(text: str) -> str:
    """Return a text as it stands in the page."""
    return escape(text, quote=False).replace("# @", "# &commat;")


def _block(block: Block) -> list[str]:
    if isinstance(block, Heading):
        return [f"<h{block.level}>{_cell(block.text)}</h{block.level}>"]
    if isinstance(block, Paragraph):
        return [f"<p>{''.join(map(_cell, block.pieces))}</p>"]
    heads = "".join(f'<th scope="col">{escaped(name)}</th>' for name in block.columns)
    rows = [f"<tr>{''.join(f'<td>{_cell(one)}</td>' for one in row)}</tr>" for row in block.rows]
    return [f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>", *rows, "</tbody>\n</table>"]


def _cell(cell: Cell) -> str:
    if isinstance(cell, Fact):
        return f"{escaped(cell.text)}<!--@{cell.place}-->"
    return f'<span class="absent">{NOT_RECORDED}</span>' if cell is None else escaped(cell)
