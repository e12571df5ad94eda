"""``lapvqa card``: a model's card and datasheet from the ledger, and the check of one."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from flows.commands import own_files, terminal
from lapvqa import storage
from lapvqa.errors import EXIT_BAD_DATA, ConfigError
from lapvqa.lineage import chosen, ledger
from lapvqa.lineage.ancestry import Ancestry
from lapvqa.lineage.card import check as checking
from lapvqa.lineage.card import document
from lapvqa.lineage.card import html as as_html
from lapvqa.lineage.card import markdown as as_markdown
from lapvqa.lineage.card.fact import Fact
from lapvqa.lineage.card.page import NOT_RECORDED, Card, Cell, Heading, Paragraph
from lapvqa.project import Project

_MARKS = (b"library_name: lapvqa", b"<title>Model card</title>")
"""What a card holds, as Markdown and as HTML."""


def execute(
    project: Project, *, model: str | None, html: bool, markdown: bool, out: Path | None,
    check: Path | None,
) -> int:  # fmt: skip
    """Print or write the card of ``model``; or say what of a finished one does not hold.

    A terminal is shown what people read of it: the file's metadata and places are for machines.
    """
    entries = ledger.entries(project)
    if check is not None:
        return _check(project, check, model, entries)
    if model is None:
        raise ConfigError(
            "expected a model, found none", hint="such as `lapvqa card models/captioning`"
        )
    if out is not None:
        own_files.require(out, "--out", "a card", own_files.holds(*_MARKS))
    ledger.require_whole(project)
    ancestry = Ancestry(entries)
    card = document.card(ancestry, chosen.model(project, ancestry, model))
    page = (as_html if html else as_markdown).render(card)
    faults = checking.faults(page, entries)
    assert not faults, faults[0]
    if out is None and terminal.is_terminal() and not (html or markdown):
        _show(card, terminal.console())
        return 0
    if out is None:
        sys.stdout.write(page)
        return 0
    storage.write_bytes(out, page.encode())
    terminal.console().print(f"wrote {out}", soft_wrap=True, markup=False)
    return 0


def _show(card: Card, console: Console) -> None:
    for block in card.blocks:
        if isinstance(block, Heading):
            style = "bold" if block.level > 2 else "bold underline"
            console.print("\n", Text(_words(block.text), style=style), sep="")
        elif isinstance(block, Paragraph):
            console.print("".join(map(_words, block.pieces)), markup=False)
        else:
            rows = [list(map(_words, row)) for row in block.rows]
            terminal.show_table(console, block.columns, rows)
    console.print("\nas a file: --markdown or --html, with --out FILE", markup=False)


def _words(cell: Cell) -> str:
    if isinstance(cell, Fact):
        return cell.text
    return NOT_RECORDED if cell is None else cell


def _check(project: Project, file: Path, model: str | None, entries: list[ledger.Entry]) -> int:
    if not file.is_file():
        raise ConfigError(
            f"--check: expected a card at {file}, found none",
            hint="make one by `lapvqa card MODEL --out FILE`",
        )
    if not own_files.holds(*_MARKS)(file):
        raise ConfigError(
            f"--check: expected a card at {file}, found another file",
            hint="name what `lapvqa card MODEL --out FILE` made; a README.md of `lapvqa export` "
            "holds more than its card and is not checked",
        )
    page = file.read_bytes().decode(errors="replace")
    told = chosen.model(project, Ancestry(entries), model) if model else None
    differences = checking.differences(page, entries, model=told)
    console = terminal.console()
    for difference in differences:
        console.print(f"{file.name} {difference}", soft_wrap=True, markup=False)
    if differences:
        terminal.show_problem(
            f"{file.name} is not the card that the ledger gives",
            "it was changed, or the ledger has grown, or another version of LAPVQA made it: "
            "`lapvqa card MODEL --out FILE` makes it anew",
        )
        return EXIT_BAD_DATA
    console.print(
        f"{file.name}: {checking.count(page)} values, each as the ledger has it; made anew it has "
        "the same bytes",
        soft_wrap=True, markup=False,
    )  # fmt: skip
    return 0
