"""Records of a running stage: progress, metrics, facts, counts.

The recorder appends JSON lines to ``.lapvqa/records/<stage>.jsonl`` (the only copy that must not
be lost; the task around the stage ships it to MLflow) and prints progress: as ``@@progress``
lines for the task that listens, or sparse plain lines for a person or a log file.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

PROGRESS_PREFIX = "@@progress "


class Pace:
    """How fast the counts of ``stage`` go, and when each ends: from where it was first told.

    A resumed stage starts at what is done already: that says nothing of its speed.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self._phase: tuple[int, str] | None = None
        self._done = 0
        self._first = (0.0, 0)

    def entry(self, done: int, total: int, *, unit: str, note: str = "") -> dict[str, Any]:
        """Return a progress entry; ``eta_s`` is None while nobody knows."""
        now = time.monotonic()
        if self._phase != (total, unit) or done < self._done:  # another count begins
            self._phase, self._first = (total, unit), (now, done)
        self._done = done
        started, before = self._first
        rate = (done - before) / max(now - started, 1e-9)
        eta = (total - done) / rate if rate > 0 else None
        return {
            "stage": self.stage, "done": done, "total": total, "unit": unit,
            "rate": round(rate, 3), "eta_s": None if eta is None else round(eta, 1), "note": note,
        }  # fmt: skip


class Recorder:
    """Records of one run of one stage."""

    def __init__(
        self,
        path: Path,
        *,
        stage: str,
        machine_readable: bool | None = None,
        proceed: bool = False,
        quiet: bool = False,
        listener: Callable[[str], None] | None = None,
    ) -> None:
        """Begin the records of a run, or ``proceed`` with them from another process of it.

        ``quiet``: print nothing; ``listener`` gets each line in place of standard output.
        """
        self._quiet, self._listener = quiet, listener
        self.stage = stage
        self.said: list[str] = []
        """The lines of this process's part of the run."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._before = path.with_suffix(".before.jsonl")
        if not proceed:
            _put_aside(path, self._before)
        # Each line is one write at the end of the file, so two processes may share it.
        self._file = path.open("a", encoding="utf-8")
        if machine_readable is None:
            machine_readable = os.environ.get("LAPVQA_PROGRESS") == "json"
        self._interval = 0.5 if machine_readable else 5.0
        self._machine_readable = machine_readable
        self._pace = Pace(stage)
        self._last_shown = float("-inf")
        if not proceed:
            self._write({"kind": "start", "stage": stage, "pid": os.getpid()})

    def progress(self, done: int, total: int, *, unit: str, note: str = "") -> None:
        """Show ``done`` of ``total``; cheap to call often, shown at most every half second."""
        entry = self._pace.entry(done, total, unit=unit, note=note)
        now = time.monotonic()
        if done < total and now - self._last_shown < self._interval:
            return
        self._last_shown = now
        self._write({"kind": "progress", **entry})
        if self._machine_readable:
            self._print(PROGRESS_PREFIX + json.dumps(entry))
        else:
            self._print(progress_line(entry))

    def metrics(self, values: dict[str, float], *, step: int) -> None:
        """Record metrics at a step (loss, lr, images_per_s, grad_norm)."""
        self._write({"kind": "metrics", "step": step, "values": values})

    def facts(self, values: dict[str, Any]) -> None:
        """Record facts of the run (sizes, digests, device); they become tags or parameters."""
        self._write({"kind": "facts", "values": values})

    def resume(self, step: int) -> None:
        """Take over what an interrupted run had recorded up to ``step``, where this one goes on.

        Its metrics keep their times, so that the records of one training are one story.
        """
        sessions, seconds, started, t = 1, 0.0, None, 0.0
        for line in _lines(self._before):
            if line["kind"] == "metrics" and line["step"] <= step:
                self._write(line)
            elif line["kind"] == "resumed":
                sessions += line["values"]["sessions_before"]
                seconds += line["values"]["seconds_before"]
            if line["kind"] == "start":
                started = line["t"]
            t = max(t, line["t"])
        if started is not None:
            before = {
                "sessions_before": sessions,
                "seconds_before": round(seconds + t - started, 3),
            }
            self._write({"kind": "resumed", "values": before})

    def seconds_before(self) -> float:
        """Return how long the interrupted runs took that this one resumed."""
        self._file.flush()
        resumed = (line for line in _lines(Path(self._file.name)) if line["kind"] == "resumed")
        return float(sum(line["values"]["seconds_before"] for line in resumed))

    def say(self, text: str) -> None:
        """Print one line for the person who watches, and keep it."""
        self.said.append(text)
        self._write({"kind": "say", "text": text})
        self._print(f"{self.stage}: {text}")

    def summary(self, counts: dict[str, float | int | str]) -> None:
        """Record the closing counts of the stage."""
        self._write({"kind": "summary", "values": counts})

    def close(self) -> None:
        """Flush to disk and close."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def _write(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps({"t": round(time.time(), 3), **entry}) + "\n")
        self._file.flush()

    def _print(self, text: str) -> None:
        if self._quiet:
            return
        if self._listener is not None:
            self._listener(text)
            return
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def progress_line(entry: dict[str, Any]) -> str:
    """Return a progress entry as a line; of speed and end nothing while nobody knows them."""
    parts = [f"{entry['done']}/{entry['total']} {entry['unit']}"]
    if entry["eta_s"] is not None:
        parts += [f"{entry['rate']:.1f}/s", f"ETA {span(round(entry['eta_s']))}"]
    return f"{entry['stage']}: {', '.join(filter(None, [*parts, entry['note']]))}"


def span(seconds: float) -> str:
    """Return a duration: "0.04 s", "12.3 s", "12 s" of an int, "3 min 20 s", "2 h 5 min"."""
    if seconds < 60:
        digits = 0 if isinstance(seconds, int) else 2 if seconds < 1 else 1
        return f"{seconds:.{digits}f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def counted(number: int, noun: str) -> str:
    """Return "1 file" or "2 files"; of a noun in -y "2 studies"."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun[:-1]}ies" if noun.endswith("y") else f"{number} {noun}s"


def _put_aside(path: Path, before: Path) -> None:
    """Keep the records of a run that was interrupted, for the one that resumes it."""
    kinds = {line["kind"] for line in _lines(path)}
    if "metrics" in kinds and "summary" not in kinds:
        path.replace(before)
    elif "summary" in kinds:
        before.unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of records, without those that a kill has cut."""
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as handle:
            for text in handle:
                with suppress(ValueError):
                    yield json.loads(text)
