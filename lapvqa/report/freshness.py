"""How it stayed fresh: arrivals, looks, decisions, trainings, gates and champions on one line.

A page of its own beside the report, drawn anew after each run and look: a section inside the page
would make the stage report stale by every entry of the ledger, also by its own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lapvqa import storage
from lapvqa.arrivals import first_of_studies
from lapvqa.gate import champions
from lapvqa.lineage import ledger, runs
from lapvqa.lineage.ledger import DECISION, DRIFT, Entry
from lapvqa.lineage.runs import FINISHED
from lapvqa.pages.templates import templates
from lapvqa.project import Project
from lapvqa.report.figures import percent

ARRIVALS, LOOKS, DECISIONS, TRAININGS, GATES, CHAMPIONS = (
    "Arrivals", "Looks for drift", "Decisions", "Trainings", "Gates", "Champions",
)  # fmt: skip
LANES = (ARRIVALS, LOOKS, DECISIONS, TRAININGS, GATES, CHAMPIONS)
_BARS, _ROWS, _SAID, _HEIGHT, _DAY = 60, 200, 12, 34, 86400.0
_MARKS = {
    "yes": Markup('<path class="yes" d="M0-7 7 6-7 6Z"/>'),
    "no": Markup('<path class="no" d="M-5-5 5 5M5-5-5 5"/>'),
    "alarm": Markup('<path class="alarm" d="M0-7 7 0 0 7-7 0Z"/>'),
    "open": Markup('<circle class="open" r="5"/>'),
}
_ACTS = {"train", "resume"}
_VERDICTS = {"promote": "yes", "reject": "no"}


@dataclass(frozen=True)
class Event:
    """Something that happened: on which line, by which of ``_MARKS``, in words."""

    time: float
    """Seconds since the epoch."""
    lane: str
    mark: str
    outcome: str
    why: str = ""
    studies: int = 0


def write_page(project: Project) -> None:
    """Write reports/freshness.html from the ledger and the list of arrivals."""
    storage.write_bytes(project.freshness_page, render(find_events(project)).encode())


def find_events(project: Project) -> list[Event]:
    """Return what happened, oldest first."""
    entries = ledger.entries(project)
    arrived = list(_arrived(project.arrivals)) or list(_taken_in(entries))
    told = [event for entry in entries if (event := _told(entry)) is not None]
    crowned = list(_champions(entries))
    return sorted([*arrived, *told, *crowned], key=lambda event: event.time)


def render(events: Sequence[Event]) -> str:
    """Return the page; the same events give the same bytes."""
    page = templates(Path(__file__).with_name("templates")).get_template("freshness.html")
    rows = [event for event in reversed(events) if event.lane != ARRIVALS]
    return page.render(
        events=events, lines=list(_summary(events)), lanes=_lanes(events), ends=_ends(events),
        rows=[(_moment(event.time), event) for event in rows[:_ROWS]],
        left_out=max(0, len(rows) - _ROWS), marks=_MARKS,
    )  # fmt: skip


# What happened


def _arrived(path: Path) -> Iterator[Event]:
    for one in first_of_studies(path).values():
        yield Event(one.at.timestamp(), ARRIVALS, "open", "arrived", studies=1)


def _taken_in(entries: Sequence[Entry]) -> Iterator[Event]:
    """Yield by how many studies each ingest has grown, where no arrivals were written."""
    before = 0
    for entry in entries:
        run = runs.of_entry(entry)
        if run is None or run.stage != "ingest" or run.outcome != FINISHED:
            continue
        now = int(run.counts.get("studies", 0))
        if now > before:
            yield Event(run.started + run.seconds or entry.time, ARRIVALS, "open", "taken in",
                        studies=now - before)  # fmt: skip
        before = now


def _told(entry: Entry) -> Event | None:
    said = entry.payload
    if said is None:
        return None
    run = runs.of_entry(entry)
    if run is not None and run.stage == "pretrain":
        done = run.outcome == FINISHED
        return Event(entry.time, TRAININGS, "yes" if done else "no", run.outcome)
    if entry.kind == DRIFT and said.get("what") == "look":
        return _look(entry.time, said)
    if entry.kind == DRIFT and said.get("what") == "no look":
        return Event(entry.time, LOOKS, "no", "no look", str(said.get("why")))
    if entry.kind == DECISION:
        return _decision(entry.time, said)
    return None


def _look(time: float, said: dict[str, Any]) -> Event:
    studies = (said.get("window") or {}).get("studies", 0)
    moved = [one["name"] for one in said.get("compared", ()) if one.get("alarm")]
    if moved:
        return Event(time, LOOKS, "alarm", f"drift: {said.get('kind')}", ", ".join(moved))
    why = f"{studies} new studies, {len(said.get('compared', ()))} streams compared"
    if not said.get("level"):  # nothing was compared, or it was too soon after the last look
        return Event(time, LOOKS, "open", "described", why)
    return Event(time, LOOKS, "open", "no drift", why)


def _decision(time: float, said: dict[str, Any]) -> Event:
    if said.get("what") == "gate":
        verdict = str(said.get("verdict"))
        why = "; ".join(said.get("reasons") or ())
        return Event(time, GATES, _VERDICTS.get(verdict, "open"), verdict, why)
    text = str(said.get("decision") or said.get("what") or "")
    answer = said.get("answer") or said.get("outcome")
    if answer is None:  # of an erasure, say
        if what := said.get("what"):  # a seal, a rollback
            return Event(time, DECISIONS, "open", str(what), text)
        return Event(time, DECISIONS, "open", text, str(said.get("request") or ""))
    mark = "yes" if answer in _ACTS else "open"
    return Event(time, DECISIONS, mark, str(answer), str(said.get("why") or text))


def _champions(entries: Sequence[Entry]) -> Iterator[Event]:
    """Yield each model that became champion; one that is named again is no event."""
    holder = None
    for entry, said in champions.moves(entries):
        if said.get("version") != holder:
            why = f"in place of version {holder}" if holder else "the first"
            yield Event(entry.time, CHAMPIONS, "yes", f"version {said.get('version')}", why)
        holder = said.get("version")


# How it is shown


def _summary(events: Sequence[Event]) -> Iterator[str]:
    studies = sum(event.studies for event in events)
    if studies:
        yield f"{studies:,} studies arrived from {_day(events[0].time)} on."
    by_lane = {lane: [event for event in events if event.lane == lane] for lane in LANES}
    for lane, noun in ((LOOKS, "looks for drift"), (DECISIONS, "decisions"), (GATES, "gates")):
        if own := by_lane[lane]:
            yield f"{len(own)} {noun}: {_kinds(own)}."
    crowned = by_lane[CHAMPIONS]
    if crowned:
        yield f"The champion is {crowned[-1].outcome}, since {_day(crowned[-1].time)}."
    elif events:
        yield "No model has been promoted: there is no champion."


def _kinds(events: Sequence[Event]) -> str:
    counts = Counter(event.outcome for event in events)
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def _lanes(events: Sequence[Event]) -> list[tuple[str, Markup, str]]:
    """Return of each line its name, its figure and what the figure says in words."""
    if not events:
        return []
    start, length = events[0].time, (events[-1].time - events[0].time) or 1.0
    found = []
    for lane in LANES:
        own = [event for event in events if event.lane == lane]
        if lane == ARRIVALS:
            drawn = _bars([(event.time - start, event.studies) for event in own], length)
            words = f"{sum(event.studies for event in own):,} studies"
        else:
            drawn = Markup("").join(_mark(event, (event.time - start) / length) for event in own)
            words = ", ".join(f"{_day(event.time)} {event.outcome}" for event in own) or "none"
            if len(own) > _SAID:
                words = f"{_kinds(own)}; {_day(own[0].time)} to {_day(own[-1].time)}"
        figure = Markup('<svg class="lane" width="100%" height="{}">{}</svg>').format(
            _HEIGHT, drawn
        )
        found.append((lane, figure, f"{lane}: {words}"))
    return found


def _mark(event: Event, share: float) -> Markup:
    title = f"{_day(event.time)}: {event.outcome}" + (f" ({event.why})" if event.why else "")
    return Markup(
        '<svg x="{}%" y="{}" width="1" height="1" overflow="visible"><title>{}</title>{}</svg>'
    ).format(percent(share), _HEIGHT / 2, title, _MARKS[event.mark])


def _bars(arrived: Sequence[tuple[float, int]], length: float) -> Markup:
    """Draw studies by days, or by as many days together as leave 60 bars at most.

    By hours or minutes where no more has passed: a day would fill the line.
    """
    days = math.ceil(length / _DAY / _BARS) * _DAY
    width = next((unit for unit in (60.0, 3600.0) if length <= unit * _BARS), days)
    counts: Counter[int] = Counter()
    for since, studies in arrived:
        counts[int(since // width)] += studies
    most = max(counts.values(), default=1)
    return Markup("").join(
        Markup('<rect x="{}%" y="{}" width="{}%" height="{}"><title>{} studies</title></rect>')
        .format(
            percent(place * width / length), f"{_HEIGHT * (1 - count / most):.1f}",
            percent(max(0.0, min(0.8 * width / length, 1 - place * width / length))),
            f"{_HEIGHT * count / most:.1f}", f"{count:,}",
        )
        for place, count in sorted(counts.items())
    )  # fmt: skip


def _ends(events: Sequence[Event]) -> tuple[str, str]:
    if not events:
        return "", ""
    first, last = events[0].time, events[-1].time
    shown = _moment if _day(first) == _day(last) else _day
    return shown(first), shown(last)


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
