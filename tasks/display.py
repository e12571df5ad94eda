"""Show stages while they run: a live bar in a terminal, sparse lines in a log file."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_SPARSE_S = 15.0


@dataclass(frozen=True)
class StageOutcome:
    """What became of one stage: status is "ran", "up to date" or "failed"."""

    name: str
    status: str
    seconds: float
    reason: str = ""


class Display:
    """Shows one pipeline run; ``Display(Console(quiet=True))`` shows nothing."""

    def __init__(self, console: Console, *, progress: bool = True) -> None:
        self._console = console
        self._progress = progress
        self._bar: Progress | None = None
        self._rows: dict[str, TaskID | None] = {}
        """Stages at work, and the row of each that has told of its progress."""
        self._last_line = 0.0

    def say(self, text: str) -> None:
        """Print one line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def begin(self, stage: str, reason: str) -> None:
        """Announce a stage."""
        self.say(f"{stage}: starts ({reason})" if reason else f"{stage}: starts")
        self._last_line = time.monotonic()
        self._rows[stage] = None
        if self._bar is None and self._progress and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(),
                TextColumn("{task.completed:g}/{task.total:g} {task.fields[detail]}"),
                TimeRemainingColumn(compact=True),
                console=self._console, transient=True,
            )  # fmt: skip
            self._bar.start()

    def progress(self, entry: dict[str, Any]) -> None:
        """Show one progress entry of a stage's recorder."""
        detail = f"{entry['unit']}, {entry['rate']:.1f}/s {entry.get('note') or ''}".rstrip()
        if self._bar is not None:
            row = self._rows.get(entry["stage"])
            if row is None:
                row = self._bar.add_task(entry["stage"], total=entry["total"], detail=detail)
                self._rows[entry["stage"]] = row
            self._bar.update(row, completed=entry["done"], total=entry["total"], detail=detail)
        elif self._progress and time.monotonic() - self._last_line >= _SPARSE_S:
            self._last_line = time.monotonic()
            eta = entry.get("eta_s")
            remaining = "unknown" if eta is None else f"{eta:.0f} s"
            self.say(
                f"{entry['stage']}: {entry['done']}/{entry['total']} {detail}, ETA {remaining}"
            )

    def end(self, outcome: StageOutcome) -> None:
        """Announce how a stage ended."""
        row = self._rows.pop(outcome.name, None)
        if self._bar is not None and row is not None:
            self._bar.remove_task(row)
        if not self._rows:
            self.clear()
        tail = f" ({outcome.reason})" if outcome.reason else ""
        if outcome.status == "up to date":
            self.say(f"{outcome.name}: up to date{tail}")
        else:
            self.say(f"{outcome.name}: {outcome.status} after {outcome.seconds:.1f} s{tail}")

    def clear(self) -> None:
        """Take the live bar away."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = None
        self._rows.clear()
