"""What happened to this project, newest first, in sentences."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from lapvqa.lineage import changes, index
from lapvqa.lineage.changes import PARAMETER
from lapvqa.lineage.ledger import (
    ARRIVAL,
    CODE,
    DECISION,
    DRIFT,
    ERASURE,
    IMPORT,
    LOOK,
    MODEL,
    PATCH,
    RELEASE,
    RUN,
    TRAINED_ON,
    WAIVER,
)
from lapvqa.lineage.origins import EVALUATION, Origin, Origins
from lapvqa.lineage.runs import FAILED, FINISHED
from lapvqa.project import Project

_CHANGES_SHOWN = 4


@dataclass(frozen=True)
class Event:
    """Something that happened."""

    time: float
    """Seconds since the epoch."""
    sentence: str
    details: tuple[str, ...] = ()
    entries: tuple[str, ...] = ()
    """Ids of the ledger's entries that tell it."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def tell(project: Project, *, limit: int | None = None) -> list[Event]:
    """Return what happened, newest first; at most ``limit`` events."""

    def answer(database: sqlite3.Connection) -> list[Event]:
        origins = Origins(database)
        events = _runs(database, origins, -1 if limit is None else limit)
        rows = database.execute(
            "SELECT id, kind, time, payload FROM entries WHERE number >= 0 "
            "AND kind NOT IN (?, ?, ?, ?)", (RUN, CODE, PATCH, TRAINED_ON),
        )  # fmt: skip
        for row in rows:
            said = None if row["payload"] is None else json.loads(row["payload"])
            events.append(_other(row["id"], row["kind"], row["time"], said))
        numbers = dict(database.execute("SELECT id, number FROM entries").fetchall())

        def moment(event: Event) -> tuple[float, int]:
            """Two entries of one millisecond keep the ledger's order."""
            return event.time, max(numbers[entry] for entry in event.entries)

        return sorted(events, key=moment, reverse=True)[:limit]

    return index.ask(project, answer)


def _runs(database: sqlite3.Connection, origins: Origins, limit: int) -> list[Event]:
    """Return an event per pipeline run, and one per run outside of any; the latest ones."""
    rows = database.execute(
        "SELECT run, together FROM runs JOIN (SELECT coalesce(prefect_flow_run, id) AS together, "
        "max(started + seconds) AS ended FROM runs WHERE run >= 0 GROUP BY 1 "
        "ORDER BY ended DESC, max(run) DESC LIMIT ?) ON together = coalesce(prefect_flow_run, id) "
        "ORDER BY started, run", (limit,),
    )  # fmt: skip
    grouped: dict[str, list[Origin]] = {}
    for row in rows:
        origin = origins.at(row["run"])
        if origin is not None:
            grouped.setdefault(row["together"], []).append(origin)
    return [_run_event(group, origins) for group in grouped.values()]


def _run_event(group: list[Origin], origins: Origins) -> Event:
    first, last = group[0], group[-1]
    ended = max(run.run.started + run.run.seconds for run in group)
    entries = tuple(run.id for run in group)
    if first.stage == EVALUATION:
        return Event(ended, _judged(first), (), entries)
    done = [run.stage for run in group if run.run.outcome == FINISHED]
    broken = [run for run in group if run.run.outcome != FINISHED]
    seconds = ended - first.run.started
    if not last.run.seconds and not first.run.prefect_flow_run:
        sentence = f"{_list(done)} had run outside of `lapvqa run`, or came from DVC's cache."
    elif broken:
        how = "failed" if broken[-1].run.outcome == FAILED else "was interrupted"
        before = f", after {_list(done)}" if done else ""
        sentence = f"A run ended early: {broken[-1].stage} {how}{before}."
    else:
        sentence = f"A run brought {_list(done)} up to date in {_span(seconds)}."
    details = [*_causes(group, origins), *_outcomes(group)]
    commit = last.run.commit
    if commit:
        dirty = ", with local changes" if last.run.dirty else ""
        details.append(f"code of commit {commit[:12]}{dirty}")
    return Event(ended, sentence, tuple(details), entries)


def _causes(group: list[Origin], origins: Origins) -> list[str]:
    """Say which parameters and how much code were others than at the run before."""
    parameters: dict[str, None] = {}
    files: set[str] = set()
    for run in group:
        before = origins.before(run)
        for change in changes.between(before, run, environment=False) if before else []:
            if change.kind == PARAMETER:
                parameters[str(change)] = None
            elif change.kind == changes.CODE:
                files.add(change.name)
    shown = list(parameters)[:_CHANGES_SHOWN]
    more = len(parameters) - len(shown)
    said = [f"changed: {', '.join(shown)}{f' and {more} more' if more else ''}"] if shown else []
    if files:
        names = sorted(files)[:_CHANGES_SHOWN]
        rest = len(files) - len(names)
        said.append(f"changed files: {', '.join(names)}{f' and {rest} more' if rest else ''}")
    return said


def _outcomes(group: list[Origin]) -> list[str]:
    """Say the main result of each evaluation, and how much was taken in."""
    said = []
    for run in group:
        counts = run.run.counts
        if run.stage == "ingest" and counts:
            said += [f"{counts[name]} {name}" for name in ("images", "studies") if name in counts]
        primary = [name for name in counts if name.endswith("_trained")]
        said += [f"{run.stage.removeprefix('evaluate@')}: {name.removesuffix('_trained')} "
                 f"{float(counts[name]):.3f}" for name in primary]  # fmt: skip
    return [", ".join(said)] if said else []


def _judged(origin: Origin) -> str:
    counts = origin.run.counts
    if "reason" in counts:
        return (
            f"Encoder {counts.get('encoder')} could not be judged by {counts.get('task')}: "
            f"{counts['reason']}."
        )
    values = [f"{name} {value:.3f}" for name, value in counts.items() if isinstance(value, float)]
    shown = f": {', '.join(values)}" if values else ""
    return f"Encoder {counts.get('encoder')} was judged by {counts.get('task')}{shown}."


def _other(entry: str, kind: str, time: float, said: dict[str, Any] | None) -> Event:
    if said is None:
        return Event(time, f"An entry of kind {kind} was written here; what it said is erased.",
                     (), (entry,))  # fmt: skip
    sentence = _SENTENCES.get(kind, _plain)(said)
    return Event(time, sentence or f"An entry of kind {kind}.", (), (entry,))


def _model(said: dict[str, Any]) -> str:
    aliases = said.get("aliases") or []
    if "decision" in said:  # the alias has moved, forth or back
        return f"{said.get('name')} {said.get('version')} is the {' and '.join(aliases)} now."
    called = f", now {', '.join(aliases)}" if aliases else ""
    return f"{said.get('name')} {said.get('version')} was registered{called}."


def _erasure(said: dict[str, Any]) -> str:
    count = len(said.get("ids", []))
    why = said.get("why") or said.get("request")
    return f"What {count} {_many('entry', count)} said was erased{f' ({why})' if why else ''}."


def _decision(said: dict[str, Any]) -> str:
    what = said.get("decision") or said.get("what") or said.get("verdict") or ""
    about = f" on {said['request']}" if said.get("request") else ""
    return f"Decided{about}: {str(what).removesuffix('?')}."


def _look(said: dict[str, Any]) -> str:
    if "manifest" in said:
        return (
            f"The gate looked at {said['number_of_patients']} test patients "
            f"({said['manifest']}; {said['new_patients']} new), at level {said['level']:.2g}."
        )
    return f"Somebody looked at the results of a test set: {said.get('task') or said.get('what')}."


def _waiver(said: dict[str, Any]) -> str:
    return f"Rejects were waived: {said.get('reason') or said.get('what')}."


def _import(said: dict[str, Any]) -> str:
    return f"A bundle of {said.get('model') or said.get('stage') or 'a run'} was imported."


def _release(said: dict[str, Any]) -> str:
    parts = [name for name in ("predictions", "weights") if said.get(name)]
    inside = f" with {_list(parts)}" if parts else ""
    return f"Run {str(said.get('run'))[:12]} was packed{inside} into the bundle {said.get('name')}."


def _arrival(said: dict[str, Any]) -> str:
    count = len(said.get("replaces", []))
    what = said.get("what") or "file"
    number = f"A {what}" if count == 1 else f"{count} {_many(str(what), count)}"
    return f"{number} from {said.get('source')} took the place of what was here before."


def _drift(said: dict[str, Any]) -> str:
    if said.get("what") == "reference":
        return f"A drift reference of {said.get('studies')} studies was frozen."
    if said.get("what") == "no look":
        return f"No look for drift could be taken: {said.get('why')}."
    studies = (said.get("window") or {}).get("studies")
    if not said.get("level"):
        why = "too soon after the last one" if said.get("compared") else "nothing to compare yet"
        return f"A look at {studies} new studies could find no drift: {why}."
    found = f"drift of kind {said.get('kind')}" if said.get("alarm") else "no drift"
    return f"A look at {studies} new studies found {found}."


def _plain(said: dict[str, Any]) -> str:
    return ", ".join(f"{name} {said[name]}" for name in sorted(said) if _is_short(said[name]))


def _is_short(value: Any) -> bool:
    return isinstance(value, int | float | str) and len(str(value)) < 80


def _many(noun: str, count: int) -> str:
    if count == 1:
        return noun
    return f"{noun.removesuffix('y')}ies" if noun.endswith("y") else f"{noun}s"


def _list(names: list[str]) -> str:
    if len(names) < 3:
        return " and ".join(names) or "nothing"
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


_SENTENCES: dict[str, Callable[[dict[str, Any]], str]] = {
    MODEL: _model, ERASURE: _erasure, DECISION: _decision, LOOK: _look, WAIVER: _waiver,
    IMPORT: _import, RELEASE: _release, ARRIVAL: _arrival, DRIFT: _drift,
}  # fmt: skip
