"""The walk downstream: what came of a file, a film, a study or a patient.

A person's films are one row each of a shard; which trainings sampled them is told by the bitmaps of
the ledger, so a model that read the shard and never drew the patient is not among them.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict, dataclass, replace
from typing import Any

from pyroaring import BitMap

from lapvqa.evaluation import task_table
from lapvqa.lineage import index, members, registered, targets
from lapvqa.lineage.ledger import ARRIVAL, IMPORT, RELEASE, TRAINED_ON
from lapvqa.lineage.origins import Origin, Origins
from lapvqa.lineage.registered import Version
from lapvqa.lineage.row_numbers import PATIENT, STUDY, RowNumbers, unpacked
from lapvqa.lineage.targets import FILM, MODEL, Key, Target
from lapvqa.project import Project

_OF_PEOPLE = (PATIENT, STUDY, FILM)
_NO_NUMBERS = (
    "ledger/private, which says who stands behind the row numbers of the ledger, is not here: whom "
    "a training sampled can only be told where it ran"
)
_RELEASES = (RELEASE, IMPORT)


@dataclass(frozen=True)
class Place:
    """Rows of one file that are of the target."""

    path: str
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Sampling:
    """One training that drew the target, or chose its best step by it."""

    origin: Origin
    role: str
    """train: sampled; validate: chose the best step."""
    studies: int
    """How many of the target's studies."""
    times: int
    """Samples drawn of them until the last step."""


@dataclass(frozen=True)
class Predicted:
    """Rows of a predictions file about the target."""

    path: str
    rows: int


@dataclass(frozen=True)
class Impact:
    """A target and all that came of it."""

    target: Target
    films: tuple[dict[str, Any], ...]
    """Key, split, shard and row of each film of a person."""
    tokens: tuple[Place, ...]
    sampled: tuple[Sampling, ...]
    starts: tuple[Origin, ...]
    """The runs that read the target, sampled it, or were judged on it."""
    runs: tuple[Origin, ...]
    """Those and all that stand on them, oldest first."""
    predicted: tuple[Predicted, ...]
    models: tuple[Version, ...]
    """Registered versions among what those runs left."""
    releases: tuple[dict[str, Any], ...]
    """Entries of bundles that carry one of the runs."""
    heads: tuple[Origin, ...] = ()
    """Evaluations whose heads learn from films of the target's split: it may be among them."""
    replaced: tuple[dict[str, Any], ...] = ()
    """Of a person's studies what arrived in place of what, oldest first: digests of reports (keyed)
    and of files."""

    @property
    def artefacts(self) -> list[Key]:
        """What those runs left."""
        return [Key(*out, run.id) for run in self.runs for out in run.run.outs.items()]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        target = self.target.to_json()
        return {
            "target": target,
            "films": list(self.films),
            "token_rows": [asdict(place) for place in self.tokens],
            "sampled_by": [
                {
                    "run": one.origin.id, "stage": one.origin.stage, "role": one.role,
                    "studies": one.studies, "times": one.times,
                    "checkpoints": checkpoints(one.origin),
                }
                for one in self.sampled
            ],
            "predictions": [asdict(one) for one in self.predicted],
            "runs": [run.to_json() for run in self.runs],
            "artefacts": [key._asdict() for key in self.artefacts],
            "metrics": {
                run.id: run.run.metrics for run in self.runs if run.run.metrics
            },
            "models": [asdict(version) for version in self.models],
            "releases": list(self.releases),
            "heads": [{"run": one.id, "stage": one.stage} for one in self.heads],
            "replaced": list(self.replaced),
        }  # fmt: skip


def checkpoints(origin: Origin) -> list[str]:
    """Return the weights that a training left."""
    return [path for path in origin.run.outs if path.endswith((".pt", ".safetensors"))]


def follow(project: Project, asked: str, *, person: bool = False) -> Impact:
    """Walk from what ``asked`` names down to metrics and releases; ``person``: it is one's id.

    Raises ConfigError if it is nothing that this project knows, or the lists of keys were lost by
    which its trainings know people; it never repeats a person's id.
    """
    if person:
        _require_members(project)

    def answer(database: sqlite3.Connection) -> Impact:
        if person:
            return walk(project, database, targets.find_person(project, database, asked))
        target = targets.find(project, database, asked)
        if target.kind in _OF_PEOPLE:
            _require_members(project)
        return walk(project, database, target)

    return index.ask(project, answer)


def _require_members(project: Project) -> None:
    """Raise ConfigError where the lists of keys were lost; a clone has none and says so."""
    if project.row_numbers.exists():
        members.require(project)


def walk(project: Project, database: sqlite3.Connection, target: Target) -> Impact:
    """Walk from a target that is found already."""
    origins = Origins(database)
    films = _films(database, target)
    predicted = _predictions(database, target, films)
    sampled: list[Sampling] = []
    heads: list[Origin] = []
    if target.kind in _OF_PEOPLE:
        if not RowNumbers(project, PATIENT).keys():
            target = replace(target, remark=_NO_NUMBERS)
        elif untold := _untold(database):
            target = replace(target, remark=f"{untold} {_UNTOLD}")
        sampled = _samplings(project, origins, target, films)
        heads = _heads(origins, films)
        read = [*(one.origin for one in sampled), *heads]
        judged = _judges(database, origins, predicted)
        starts = list(dict.fromkeys([*(origin.number for origin in read), *judged]))
    elif target.runs:
        starts = list(target.runs)
    else:
        starts = _readers(database, origins, target)
    after = origins.downstream(starts) if starts else []
    first = [run for number in starts if (run := origins.at(number)) is not None]
    runs = sorted([*first, *after], key=lambda run: (run.run.started, run.number))
    weights = {
        facts["sha256"] for run in runs for facts in run.run.files.values() if "sha256" in facts
    }
    versions = registered.versions(project, database)
    return Impact(
        target, films, _token_places(database, films, target), tuple(sampled), tuple(first),
        tuple(runs), predicted,
        tuple(version for version in versions if version.sha256 in weights),
        _releases(database, {run.id for run in runs}), tuple(heads),
        _replaced(project, database, _studies(films, target)),
    )  # fmt: skip


_UNTOLD = "trainings in the ledger no longer say whom they sampled: they may be missing here"


def _untold(database: sqlite3.Connection) -> int:
    """Return how many trainings' lists of members are gone: erased, or lost with payloads.jsonl."""
    query = "SELECT count(*) FROM entries WHERE kind = ? AND payload IS NULL"
    return int(database.execute(query, (TRAINED_ON,)).fetchone()[0])


def _films(database: sqlite3.Connection, target: Target) -> tuple[dict[str, Any], ...]:
    """Return the films of a person, or the rows of a shard."""
    column, value = {
        PATIENT: ("patient_key", target.key), STUDY: ("study_key", target.key),
        FILM: ("image_key", target.key),
    }.get(target.kind, ("shard", target.file))  # fmt: skip
    if not value:
        return ()
    rows = database.execute(
        "SELECT image_key, study_key, patient_key, split, shard, row FROM films "
        f"WHERE {column} = ? ORDER BY shard, row", (value,),
    )  # fmt: skip
    return tuple(dict(row) for row in rows)


def _studies(films: tuple[dict[str, Any], ...], target: Target) -> list[str]:
    keys = dict.fromkeys(film["study_key"] for film in films)
    if target.kind == STUDY and target.key:
        keys[target.key] = None
    return list(keys)


def _samplings(
    project: Project, origins: Origins, target: Target, films: tuple[dict[str, Any], ...]
) -> list[Sampling]:
    """Return the trainings whose bitmaps hold the target, oldest first.

    Of a film: those that sampled its study, of whose films the bitmaps count all together.
    """
    studies = RowNumbers(project, STUDY).find_all(_studies(films, target))
    patients = BitMap()
    if target.kind == PATIENT and target.key:
        patients = RowNumbers(project, PATIENT).find_all([target.key])
    found: dict[tuple[int, str], list[int]] = {}
    rows = origins.database.execute(
        "SELECT run, role, times, rows FROM trained_on JOIN runs USING (run) ORDER BY started, run"
    )
    for row in rows:
        asked = patients if row["times"] is None else studies
        shared = BitMap.deserialize(row["rows"]).intersection_cardinality(asked) if asked else 0
        if shared:
            count = found.setdefault((row["run"], row["role"]), [0, 0])
            if row["times"] is not None:
                count[0] += shared
                count[1] += shared * row["times"]
    sampled = []
    for (number, role), (num_studies, times) in found.items():
        origin = origins.at(number)
        drawn = times or role != "train" or not num_studies
        if origin is not None and drawn:  # known to a training and drawn by no step: not sampled
            sampled.append(Sampling(origin, role, num_studies, times))
    return sampled


def _heads(origins: Origins, films: tuple[dict[str, Any], ...]) -> list[Origin]:
    """Return the present results of a head that was trained on the archive's train and validate."""
    if not {film["split"] for film in films} & {"train", "validate"}:
        return []
    stages = [f"evaluate@{task.name}" for task in task_table.find_all() if task.tests_archive]
    found = (origins.present(stage) for stage in stages)
    known = (origin for origin in found if origin is not None)
    return [one for one in known if "reason" not in one.run.counts]  # why it was not computed


def _readers(database: sqlite3.Connection, origins: Origins, target: Target) -> list[int]:
    """Return the runs that read the target's artefacts."""
    numbers: dict[int, None] = {}
    keys = target.artefacts
    if target.kind == MODEL:  # one encoder, written in several forms by one run
        made = [run for key in keys if (run := origins.by_id(key.run)) is not None]
        keys = tuple(Key(*out, run.id) for run in made for out in run.run.outs.items())
    for key in keys:
        if key.run is None:
            numbers |= dict.fromkeys(_readers_of_input(database, origins, key))
            continue
        rows = database.execute(
            "SELECT u.run FROM artefacts a JOIN runs ON runs.run = a.run "
            "JOIN used u USING (artefact) WHERE runs.id = ? "
            "AND (a.path = ? OR substr(?, 1, length(a.path) + 1) = a.path || '/')",
            (key.run, key.path, key.path),
        )
        numbers |= dict.fromkeys(row[0] for row in rows)
    return list(numbers)


def _readers_of_input(database: sqlite3.Connection, origins: Origins, key: Key) -> list[int]:
    rows = database.execute(
        "SELECT run FROM inputs WHERE path = ? AND md5 = ?", (key.path, key.md5)
    )
    found = [row[0] for row in rows]
    for row in database.execute("SELECT digest, payload FROM code JOIN entries USING (number)"):
        if row["payload"] and json.loads(row["payload"])["files"].get(key.path) == key.md5:
            ran = database.execute("SELECT run FROM runs WHERE code = ?", (row["digest"],))
            found += [one[0] for one in ran]
    return found


def _token_places(
    database: sqlite3.Connection, films: tuple[dict[str, Any], ...], target: Target
) -> tuple[Place, ...]:
    if target.kind not in _OF_PEOPLE:
        return ()
    rows: dict[str, list[int]] = {}
    for study in _studies(films, target):
        for shard, row in database.execute(
            "SELECT shard, row FROM token_rows WHERE study_key = ? ORDER BY shard, row", (study,)
        ):
            rows.setdefault(f"data/tokens/{shard}", []).append(row)
    return tuple(Place(path, tuple(found)) for path, found in sorted(rows.items()))


def _predictions(
    database: sqlite3.Connection, target: Target, films: tuple[dict[str, Any], ...]
) -> tuple[Predicted, ...]:
    """Return the rows of results/ and evaluations/ about a person, as they are now."""
    if target.kind == PATIENT:
        where, values = "patient = ?", [target.key]
    elif target.kind in (STUDY, FILM):
        items = [film["image_key"] for film in films]
        items += _studies(films, target) if target.kind == STUDY else []
        where, values = f"item IN ({', '.join('?' * len(items))})", items
    else:
        return ()
    rows = database.execute(
        f"SELECT path, sum(rows) FROM predicted WHERE {where} GROUP BY path ORDER BY path", values
    )
    return tuple(Predicted(*row) for row in rows)


def _judges(
    database: sqlite3.Connection, origins: Origins, predicted: tuple[Predicted, ...]
) -> list[int]:
    """Return the runs that made these predictions, and the earlier ones on the same samples."""
    numbers: dict[int, None] = {}
    for one in predicted:
        rows = database.execute(
            "SELECT a.run FROM artefacts a JOIN runs USING (run) LEFT JOIN present p "
            "ON p.run = a.run WHERE path = ? ORDER BY p.run IS NULL, started DESC", (one.path,),
        )  # fmt: skip
        runs = [run for (number,) in rows if (run := origins.at(number)) is not None]
        samples = runs[0].test_samples if runs else None
        same = [run.number for run in runs if samples and run.test_samples == samples]
        numbers |= dict.fromkeys([*(run.number for run in runs[:1]), *same])
    return list(numbers)


def _replaced(
    project: Project, database: sqlite3.Connection, studies: list[str]
) -> tuple[dict[str, Any], ...]:
    """Return what arrivals of these studies took the place of."""
    rows = database.execute(
        "SELECT time, payload FROM entries WHERE kind = ? AND payload IS NOT NULL ORDER BY number",
        (ARRIVAL,),
    )
    said = [(row["time"], json.loads(row["payload"])) for row in rows]
    asked = RowNumbers(project, STUDY).find_all(studies) if said else BitMap()
    return tuple(
        {"what": one["what"], "source": one["source"], "time": time, **pair}
        for time, one in said
        if one["study"] is not None and unpacked(one["study"]) & asked
        for pair in one["replaces"]
    )


def _releases(database: sqlite3.Connection, runs: set[str]) -> tuple[dict[str, Any], ...]:
    """Return what entries of bundles say that name one of these runs."""
    marks = ", ".join("?" * len(_RELEASES))
    rows = database.execute(
        f"SELECT kind, time, payload FROM entries WHERE kind IN ({marks}) "
        "AND payload IS NOT NULL ORDER BY number", _RELEASES,
    )  # fmt: skip
    said = [(row["kind"], row["time"], json.loads(row["payload"])) for row in rows]
    return tuple(
        {"kind": kind, "time": time, **payload}
        for kind, time, payload in said
        if payload.get("run") in runs
    )
