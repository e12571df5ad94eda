"""Show stages while they run: a live line each in a terminal, sparse lines in a log file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from lapvqa.recorder import Pace, progress_line, span

_SPARSE_S = 15.0
_BAR = 12
_FROM_WIDE, _WIDE_BAR = 100, 24


@dataclass(frozen=True)
class StageOutcome:
    """What became of one stage: status is "ran", "up to date", "failed" or "interrupted".

    ``absent``: what an evaluation lacked that ran and was not computed.
    """

    name: str
    status: str
    seconds: float
    reason: str = ""
    absent: str = ""


class Display:
    """Shows one pipeline run; ``Display(Console(quiet=True))`` shows nothing."""

    def __init__(self, console: Console, *, progress: bool = True) -> None:
        self._console = console
        self._progress = progress
        self._bar: Progress | None = None
        self._rows: dict[str, TaskID | None] = {}
        """Stages at work, and the line of each in a terminal."""
        self._places: dict[str, str] = {}
        self._last_times: Mapping[str, float] = {}
        self._last_line = 0.0

    def expect(self, stages: list[str], last_times: Mapping[str, float]) -> None:
        """Take the stages of the run in their order, and the seconds that each took last time."""
        self._places = {
            name: f"stage {place} of {len(stages)}" for place, name in enumerate(stages, start=1)
        }
        self._last_times = last_times

    def say(self, text: str) -> None:
        """Print one line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def begin(self, stage: str, reason: str) -> None:
        """Announce a stage."""
        last = self._last_times.get(stage)
        known = [
            self._places.get(stage, ""),
            "" if last is None else f"last time {span(last)}",
            reason,  # at the end: it may be long
        ]
        told = "; ".join(filter(None, known))
        self.say(f"{stage}: starts ({told})" if told else f"{stage}: starts")
        self.follow(stage, last)

    def follow(self, stage: str, last: float | None = None) -> None:
        """Begin a live line without a word; ``last``: seconds that it took last time."""
        self._last_line = time.monotonic()
        self._rows[stage] = None
        if not (self._progress and self._console.is_terminal):
            return
        if self._bar is None:
            self._bar = _live(self._console)
            self._bar.start()
        # At once and without a total: a stage may import and read for half a minute.
        self._rows[stage] = self._bar.add_task(
            stage.removeprefix("evaluate@"), total=None, count="", note="", last=last
        )

    def progress(self, entry: dict[str, Any]) -> None:
        """Show one progress entry of a stage's recorder."""
        row = self._rows.get(entry["stage"])
        if self._bar is not None and row is not None:
            eta, done, total = entry["eta_s"], entry["done"], entry["total"]
            self._bar.update(
                row, completed=done, total=total, count=f"{done}/{total} {entry['unit']}",
                note=entry["note"],
                ends=None if eta is None or done >= total else time.monotonic() + eta,
            )  # fmt: skip
        elif self._progress and time.monotonic() - self._last_line >= _SPARSE_S:
            self._last_line = time.monotonic()
            self.say(progress_line(entry))

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
        elif outcome.absent:
            self.say(f"{outcome.name}: not computed: {outcome.absent}{tail}")
        elif outcome.status == "interrupted":
            took = span(outcome.seconds)
            self.say(f"{outcome.name}: interrupted after {took}; the next run continues from here")
        else:
            self.say(f"{outcome.name}: {outcome.status} after {span(outcome.seconds)}{tail}")

    def clear(self) -> None:
        """Take the live lines away."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = None
        self._rows.clear()


@contextmanager
def counting(console: Console, what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show how much of one work of this process is done; yield what is told (done, total)."""
    display, pace = Display(console), Pace(what)
    display.follow(what)

    def told(done: int, total: int) -> None:
        display.progress(pace.entry(done, total, unit=unit))

    try:
        yield told
    finally:
        display.clear()


class _TimeColumn(ProgressColumn):
    """When the phase at work ends; while nobody knows, how long it has taken."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        ends, last = task.fields.get("ends"), task.fields.get("last")
        if ends is not None:
            return Text(f"ETA {span(round(max(ends - time.monotonic(), 0)))}")
        elapsed = span(int(task.elapsed or 0))
        return Text(elapsed if last is None else f"{elapsed}, last time {span(round(last))}")


def _live(console: Console) -> Progress:
    """Return lines that fit the terminal: name, bar, count and time are whole, the note is cut."""
    wide = console.width >= _FROM_WIDE
    return Progress(
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=_WIDE_BAR if wide else _BAR),
        TextColumn("{task.fields[count]}", table_column=Column(no_wrap=True)),
        _TimeColumn(table_column=Column(no_wrap=True)),
        TextColumn(
            "{task.fields[note]}", style="dim",
            table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
        ),
        console=console, transient=True, expand=True,
    )  # fmt: skip
