"""Printing for people: results to stdout, errors to stderr, always as what and what to do."""

from __future__ import annotations

import os
import sys
from datetime import datetime

from rich.console import Console
from rich.text import Text

from lapvqa.errors import LapvqaError
from lapvqa.recorder import counted, span

__all__ = [
    "console", "counted", "moment", "progress_console", "show_error", "show_problem", "size",
    "span",
]  # fmt: skip

_WIDTH_OF_A_FILE = 160


def console() -> Console:
    """Return the console for results; a pipe or a log file gets wide lines, not 80 columns."""
    narrow = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if narrow else _WIDTH_OF_A_FILE)


def progress_console() -> Console:
    """Return the console for progress beside JSON: stderr."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


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
