"""A card as a page of HTML that needs nothing else; each fact's place stands in a comment."""

from __future__ import annotations

from html import escape
from pathlib import Path

from markupsafe import Markup

from lapvqa.lineage.card.fact import Fact
from lapvqa.lineage.card.page import NOT_RECORDED, Card, Cell
from lapvqa.pages.templates import templates


def render(card: Card) -> str:
    """Return the card as HTML."""
    page = templates(Path(__file__).parent).get_template("card.html")
    return page.render(blocks=card.blocks, cell=_cell)


def escaped(text: str) -> str:
    """Return a text as it stands in the page."""
    return escape(text, quote=False).replace("# @", "# &commat;")


def _cell(cell: Cell) -> Markup:
    if isinstance(cell, Fact):
        return Markup(f"{escaped(cell.text)}<!--@{cell.place}-->")
    return Markup(f'<span class="small">{NOT_RECORDED}</span>' if cell is None else escaped(cell))
