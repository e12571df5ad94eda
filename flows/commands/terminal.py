"""Printing for people: results to stdout, errors to stderr, always as what and what to do."""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lapvqa.errors import LapvqaError
from lapvqa.recorder import counted, span

__all__ = [
    "console", "counted", "moment", "print_json", "progress_console", "show_error",
    "show_problem", "size", "span",
]  # fmt: skip

_WIDTH_OF_A_FILE = 160
_GAP = 2
_LEAST_PROSE = 20
"""Columns below which a text beside others cannot be read."""
_WHOLE = re.compile(r"`[^`]{1,60}`|\d (?:[kMGT]?B|m?s|min|h)\b|\[[^]\s]+, [^]\s]+\]")
"""What is not broken at its blanks: a command, a number and its unit, an interval."""
_NUMBER = re.compile(r"[-+]?[0-9][0-9.,]*(?:e[-+]?[0-9]+)?|")


class _OfAPerson(Console):
    """A terminal: a line too long for it is broken between words, and goes on indented below.

    Numbers with their unit, intervals, and commands in backticks stay whole.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as Console does, a single plain text line by line."""
        text = objects[0] if len(objects) == 1 else None
        is_plain = isinstance(text, str) and not (options.get("markup", True) and "[" in text)
        if not is_plain or "end" in options:
            super().print(*objects, **options)
            return
        for line in str(text).split("\n"):
            for piece in broken(line, self.width):
                super().print(piece, **{**options, "markup": False, "soft_wrap": True})


def broken(line: str, width: int) -> list[str]:
    """Return a line as lines of at most ``width`` characters; a longer word stays whole."""
    if len(line) <= width:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()) + _GAP)
    glued = _WHOLE.sub(lambda found: found[0].replace(" ", "\0"), line)
    pieces = textwrap.wrap(
        glued, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return [piece.replace("\0", " ") for piece in pieces]


def console() -> Console:
    """Return the console for results; a pipe or a log file gets wide lines, not 80 columns."""
    if is_terminal():
        return _OfAPerson(highlight=False)
    return Console(highlight=False, width=None if "COLUMNS" in os.environ else _WIDTH_OF_A_FILE)


def progress_console() -> Console:
    """Return the console for progress beside JSON: stderr."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def is_terminal() -> bool:
    """Tell whether results are read on a terminal, not piped or kept."""
    return sys.stdout.isatty()


def show_table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows below the names of their columns; no number is broken and no text is cut.

    The last column is broken between words if it has to be. Where the others leave it no room for
    that, each row is told in lines of its own.
    """
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    words = [len(word) for row in rows for word in row[-1].split()]
    room = console.width - sum(widths[:-1]) - _GAP * len(widths)
    if room < min(widths[-1], max(_LEAST_PROSE, *words, 0)):
        for row in rows:
            _show_row(console, columns, row)
        return
    table = Table(box=None, padding=(0, _GAP, 0, 0), header_style="dim", pad_edge=False)
    for place, name in enumerate(columns):
        is_last = place == len(columns) - 1
        table.add_column(name, no_wrap=not is_last, overflow="fold")
        if all(_NUMBER.fullmatch(row[place]) for row in rows):
            table.columns[-1].justify = "right"
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _show_row(console: Console, columns: Sequence[str], row: Sequence[str]) -> None:
    """Tell a row on one line where it fits, else with its last column on a line of its own."""
    first, *rest = row
    named = [f"{name} {text}".strip() for name, text in zip(columns[1:], rest, strict=True) if text]
    *short, last = named or [""]
    whole, most = ", ".join(named), ", ".join(named[:-1])
    ways: list[tuple[str, list[str]]] = [(whole, []), (most, named[-1:])]
    fitting = (way for way in ways if len(first) + _GAP + len(way[0]) <= console.width)
    beside, below = next(fitting, ("", [most, *named[-1:]]))
    console.print(Text.assemble((first, "bold"), f"  {beside}".rstrip()), soft_wrap=True)
    for line in filter(None, below):
        console.print(f"  {line}", markup=False, soft_wrap=True)


def print_json(value: object) -> int:
    """Write a value for machines, whatever the terminal's width; return the exit code 0."""
    sys.stdout.write(json.dumps(value, indent=2, sort_keys=True) + "\n")
    return 0


def show_error(error: LapvqaError) -> None:
    """Print what happened and what to do to stderr."""
    show_problem(error.message, error.hint)


def show_problem(what: str, to_do: str = "") -> None:
    """Print an error that has no class of its own."""
    stderr = Console(stderr=True, highlight=False, soft_wrap=True)
    stderr.print(Text("error: ", style="bold red").append(what, style="default not bold"))
    if to_do:
        stderr.print(Text("  what to do: ", style="bold").append(to_do, style="default not bold"))


def moment(seconds: float | None) -> str:
    """Return a time (seconds since the epoch) as local date and time."""
    if seconds is None:
        return "unknown"
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def size(num_bytes: float) -> str:
    """Return a number of bytes: "12 B", "3.4 MB" (decimal units)."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"
