"""How two models, or two runs, differ: whom they learnt from, by what, and what they are worth."""

from __future__ import annotations

import sqlite3
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyroaring import BitMap

from lapvqa.errors import ConfigError
from lapvqa.lineage import changes, dvc_cache, index, targets
from lapvqa.lineage.changes import Change
from lapvqa.lineage.origins import EVALUATION, Origin, Origins
from lapvqa.lineage.row_numbers import PATIENT, STUDY, RowNumbers
from lapvqa.lineage.targets import Target
from lapvqa.project import Project
from lapvqa.uptodate import hashes

if TYPE_CHECKING:
    from lapvqa.evaluation.compare import ComparisonLine

_SHOWN = ("predictions.parquet", "metrics.json")


@dataclass(frozen=True)
class Members:
    """Whom the second training has and the first has not, and the reverse; keys where known."""

    role: str
    kind: str
    """PATIENT or STUDY."""
    before: int
    now: int
    added: tuple[str, ...]
    removed: tuple[str, ...]
    """A row number as text where the key is not here (ledger/private does not travel)."""


@dataclass(frozen=True)
class MetricPair:
    """One metric of both; ``difference``: second minus first, on the same draws of patients."""

    stage: str
    name: str
    """``system.metric``."""
    before: dict[str, float | None]
    """value, low, high."""
    now: dict[str, float | None]
    difference: dict[str, float | None] | None = None
    note: str = ""
    """Why there is no difference."""


@dataclass(frozen=True)
class Side:
    """One of the two: what was asked for, and the runs behind it by stage."""

    target: Target
    runs: dict[str, Origin]
    judged: dict[str, Origin] = field(default_factory=dict)
    """Evaluations of it by stage."""


@dataclass(frozen=True)
class Difference:
    """Two sides and what differs; the second against the first."""

    sides: tuple[Side, Side]
    members: tuple[Members, ...]
    changes: dict[str, list[Change]]
    """Stage -> parameters, code, inputs, environment; stages without a difference left out."""
    metrics: tuple[MetricPair, ...]

    def to_json(self, *, keys: bool = False) -> dict[str, Any]:
        """Return plain values; ``keys``: whose they are, too, and not how many only."""
        members = []
        for one in self.members:
            plain = asdict(one)
            if not keys:
                plain |= {"added": len(one.added), "removed": len(one.removed)}
            members.append(plain)
        return {
            "sides": [
                {
                    "asked": side.target.asked,
                    "runs": {stage: run.to_json() for stage, run in side.runs.items()},
                    "evaluations": {stage: run.id for stage, run in side.judged.items()},
                }
                for side in self.sides
            ],
            "members": members,
            "changes": {
                stage: [asdict(change) for change in found] for stage, found in self.changes.items()
            },
            "metrics": [asdict(pair) for pair in self.metrics],
        }  # fmt: skip


def compare(project: Project, first: str, second: str, *, paired: bool = True) -> Difference:
    """Compare what ``first`` and ``second`` name: models, files, runs, stages.

    ``paired``: compute the differences of metrics from the predictions, which takes seconds.
    Raises ConfigError for a target that no run made.
    """

    def answer(database: sqlite3.Connection) -> Difference:
        origins = Origins(database)
        sides = (
            _side(targets.find(project, database, first), origins),
            _side(targets.find(project, database, second), origins),
        )
        found = {}
        for stage in dict.fromkeys([*sides[0].runs, *sides[1].runs]):
            runs = [side.runs.get(stage) for side in sides]
            if runs[0] is not None and runs[1] is not None and runs[0].id != runs[1].id:
                between = changes.between(runs[0], runs[1])
                if between:
                    found[stage] = between
        return Difference(
            sides, _members(project, database, sides), found, _metrics(project, sides, paired)
        )

    return index.ask(project, answer)


def _side(target: Target, origins: Origins) -> Side:
    starts = [run for number in target.runs if (run := origins.at(number)) is not None]
    starts += [run for key in target.artefacts[:1] if (run := origins.by_id(key.run)) is not None]
    if not starts:
        raise ConfigError(
            f"{target.asked} is nothing that a run made, so it has no difference",
            hint="name two models, files, runs or stages: lapvqa lineage diff RUN RUN",
        )
    runs: dict[str, Origin] = {}
    for start in starts:
        for run in origins.upstream(start).values():
            runs.setdefault(run.stage, run)
    models = [runs[stage] for stage in ("export", "pretrain") if stage in runs]
    later = origins.downstream([model.number for model in models[:1]]) if models else []
    judged = {run.stage: run for run in later if run.run.metrics and run.stage != EVALUATION}
    own = {stage: run for stage, run in runs.items() if run.run.metrics}
    return Side(target, runs, {**judged, **own})


def _members(
    project: Project, database: sqlite3.Connection, sides: tuple[Side, Side]
) -> tuple[Members, ...]:
    drawn = [_drawn(database, side) for side in sides]
    keys = {kind: RowNumbers(project, kind).keys() for kind in (PATIENT, STUDY)}
    found = []
    for role, kind in sorted(drawn[0].keys() | drawn[1].keys()):
        before, now = (side.get((role, kind), BitMap()) for side in drawn)
        found.append(Members(
            role, kind, len(before), len(now),
            _named(now - before, keys[kind]), _named(before - now, keys[kind]),
        ))  # fmt: skip
    return tuple(found)


def _drawn(database: sqlite3.Connection, side: Side) -> dict[tuple[str, str], BitMap]:
    """Return (role, kind) -> rows that the training of one side sampled, or was chosen by."""
    found: dict[tuple[str, str], BitMap] = {}
    for run in side.runs.values():
        rows = database.execute(
            "SELECT role, times, rows FROM trained_on WHERE run = ?", (run.number,)
        )
        for role, times, data in rows:
            if role == "train" and times == 0:
                continue
            kind = PATIENT if times is None else STUDY
            known = found.setdefault((role, kind), BitMap())
            known |= BitMap.deserialize(data)
            found[role, kind] = known
    return found


def _named(rows: BitMap, keys: list[str]) -> tuple[str, ...]:
    return tuple(keys[row] if row < len(keys) else str(row) for row in rows)


def _metrics(project: Project, sides: tuple[Side, Side], paired: bool) -> tuple[MetricPair, ...]:
    found = []
    for stage in sorted(sides[0].judged.keys() & sides[1].judged.keys()):
        before, now = (side.judged[stage] for side in sides)
        if before.id == now.id:
            continue
        lines = {}
        same = before.test_samples == now.test_samples
        if paired and same:
            lines = _paired(project, stage.removeprefix("evaluate@"), before, now)
        for name in sorted(before.run.metrics.keys() & now.run.metrics.keys()):
            if name.endswith((".low", ".high")) or "-" in name.partition(".")[0]:
                continue
            note = "" if same else "test sets differ"
            difference, why = lines.get(name, (None, note))
            values = [_interval(run.run.metrics, name) for run in (before, now)]
            found.append(MetricPair(stage, name, values[0], values[1], difference, why))
    return tuple(found)


def _interval(metrics: dict[str, float], name: str) -> dict[str, float | None]:
    ends = {"value": name, "low": f"{name}.low", "high": f"{name}.high"}
    return {end: metrics.get(key) for end, key in ends.items()}


def _paired(
    project: Project, task: str, before: Origin, now: Origin
) -> dict[str, tuple[dict[str, float | None] | None, str]]:
    """Return ``system.metric`` of primary metrics -> the difference, or why there is none."""
    from lapvqa.evaluation import compare, task_table
    from lapvqa.evaluation.results import read_result
    from lapvqa.params import load_params

    if task not in task_table.EVALUATIONS:
        return {}
    record = task_table.find(task)
    found: dict[str, tuple[dict[str, float | None] | None, str]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folders = [
            _restored(project, origin, Path(scratch) / str(number) / task)
            for number, origin in enumerate((before, now))
        ]
        if None in folders:
            absent = (None, "the predictions of one are no longer here")
            names = [name for name in now.run.metrics if name.endswith(f".{record.primary}")]
            return dict.fromkeys(names, absent)
        first, second = (folder for folder in folders if folder is not None)
        for system in read_result(second, task).systems:
            places = {compare.REFERENCE: (first, system), "second": (second, system)}
            common = load_params(project.params).evaluate.common
            line = compare.compare_task(record, places, common=common)
            found[f"{system}.{record.primary}"] = _of_line(line)
    return found


def _of_line(line: ComparisonLine) -> tuple[dict[str, float | None] | None, str]:
    score = line.scores.get("second")
    if score is None:
        return None, line.absent.get("second", "")
    return (asdict(score.difference), "") if score.difference else (None, score.note)


def _restored(project: Project, origin: Origin, folder: Path) -> Path | None:
    """Return a folder with the predictions and metrics that a run left, if its bytes are here."""
    folder.mkdir(parents=True)
    for path, md5 in origin.run.outs.items():
        if Path(path).name in _SHOWN:
            disk = project.root / path
            same = disk.is_file() and hashes.md5_file(disk) == md5
            file = disk if same else dvc_cache.stored(project, md5)
            if file is None:
                return None
            (folder / Path(path).name).symlink_to(file.resolve())
    return folder if any(folder.iterdir()) else None
