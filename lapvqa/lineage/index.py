"""The index: the ledger, dvc.lock and the tables as SQLite, so that a question takes a moment.

.lapvqa/lineage.sqlite is no truth: it is brought up to date each time it is opened, as far as a
file that it was made from is another one by its stat, and made again where it is damaged, of
another version, or not of this ledger. A rollback journal and no WAL, which corrupts on NFS, Lustre
and GPFS; what is deleted is overwritten. Where nothing may be written, or nothing was made yet, it
lives in memory for one question: a look leaves nothing behind.

A stage whose present state in dvc.lock no entry tells of (a bare `dvc repro`, `git pull` with `dvc
pull`) has a run with a negative number here, of what dvc.lock alone knows.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from lapvqa import storage
from lapvqa.evaluation.results import PREDICTIONS
from lapvqa.evaluation.sealed import SEALED
from lapvqa.lineage import first_ledger, ledger, runs
from lapvqa.lineage.ledger import CODE, RUN, TRAINED_ON, Entry
from lapvqa.lineage.row_numbers import unpacked
from lapvqa.lineage.runs import Run
from lapvqa.project import Project
from lapvqa.uptodate import hashes, manifest

if TYPE_CHECKING:
    import pyarrow as pa

Answer = TypeVar("Answer")

BY_RUN = "lapvqa run"
OUTSIDE = "outside lapvqa run"
"""By a bare `dvc repro`: there is a stage's own record, but no Prefect or MLflow run."""
ELSEWHERE = "on another machine"
"""Only dvc.lock tells of it: the bytes came with git and `dvc pull`."""

_VERSION = 3

_SCHEMA = """
CREATE TABLE entries (number INTEGER PRIMARY KEY,  -- negative: from dvc.lock
                      id TEXT UNIQUE, kind TEXT, time REAL,
                      payload TEXT);               -- JSON; NULL once erased
CREATE TABLE runs (run INTEGER PRIMARY KEY,        -- number of its entry
                   id TEXT UNIQUE, stage TEXT, started REAL, seconds REAL, outcome TEXT, made TEXT,
                   commit_sha TEXT, code TEXT, prefect_flow_run TEXT, prefect_task_run TEXT,
                   mlflow_run TEXT, mlflow_pipeline_run TEXT);
CREATE INDEX runs_stage ON runs (stage, started);
CREATE TABLE artefacts (artefact INTEGER PRIMARY KEY, run INTEGER, path TEXT, md5 TEXT,
                        sha256 TEXT, bytes INTEGER, rows INTEGER, UNIQUE (run, path));
CREATE INDEX artefacts_path ON artefacts (path);
CREATE INDEX artefacts_md5 ON artefacts (md5);
CREATE INDEX artefacts_sha256 ON artefacts (sha256);
CREATE TABLE used (run INTEGER, artefact INTEGER, PRIMARY KEY (run, artefact)) WITHOUT ROWID;
CREATE INDEX used_by ON used (artefact);
CREATE TABLE inputs (run INTEGER, path TEXT, md5 TEXT);   -- data whose maker is not known
CREATE TABLE unnamed (run INTEGER, path TEXT, source TEXT, artefact INTEGER);  -- makers by bytes
CREATE TABLE metrics (run INTEGER, name TEXT, value REAL, PRIMARY KEY (run, name)) WITHOUT ROWID;
CREATE TABLE code (digest TEXT PRIMARY KEY, number INTEGER);  -- entry that lists the files
CREATE TABLE trained_on (run INTEGER, role TEXT, times INTEGER,  -- times NULL: the patients
                         rows BLOB);               -- a roaring bitmap of row numbers
CREATE TABLE present (stage TEXT PRIMARY KEY, run INTEGER);   -- what dvc.lock names now
CREATE TABLE films (file_sha256 TEXT, image_key TEXT, study_key TEXT, patient_key TEXT,
                    split TEXT, shard TEXT, row INTEGER);
CREATE INDEX films_file ON films (file_sha256);
CREATE INDEX films_image ON films (image_key);
CREATE INDEX films_study ON films (study_key);
CREATE INDEX films_patient ON films (patient_key);
CREATE INDEX films_shard ON films (shard);
CREATE TABLE token_rows (study_key TEXT, shard TEXT, row INTEGER);
CREATE INDEX token_rows_study ON token_rows (study_key);
CREATE INDEX token_rows_shard ON token_rows (shard);
CREATE TABLE predicted (path TEXT, patient TEXT, item TEXT,  -- image, or what a sample is of
                        rows INTEGER);
CREATE INDEX predicted_patient ON predicted (patient);
CREATE INDEX predicted_item ON predicted (item);
CREATE TABLE state (key TEXT PRIMARY KEY, value TEXT);
"""


class _NotOurs(sqlite3.DatabaseError):
    """The index is of another version, or not of this ledger."""


def ask(project: Project, question: Callable[[sqlite3.Connection], Answer]) -> Answer:
    """Return the answer to a question; where the index proves damaged, it is made again."""
    try:
        with opened(project) as database:
            return question(database)
    except sqlite3.DatabaseError as error:
        if _is_busy(error):
            raise
        if _is_kept(project):
            rebuild(project)
        with opened(project, trusted=False) as database:
            return question(database)


@contextmanager
def opened(project: Project, *, trusted: bool = True) -> Iterator[sqlite3.Connection]:
    """Open the index of a project, brought up to date; rows come as ``sqlite3.Row``.

    ``trusted``: one that may not be written is used as it lies there, if it is up to date.
    """
    first_ledger.take_over(project)
    kept = _is_kept(project)
    with closing(_usable(project) if kept else _unkept(project, trusted)) as database:
        yield database


def rebuild(project: Project) -> None:
    """Make the index again from the ledger and the tables."""
    with _alone(project):
        _made_anew(project).close()


def faults(project: Project) -> list[str]:
    """Return the tables that differ from what the ledger and the tables say; nothing if all fit."""
    with opened(project) as database, closing(_connect(":memory:")) as fresh:
        if database.execute("PRAGMA quick_check").fetchone()[0] != "ok":
            return [".lapvqa/lineage.sqlite: the file is damaged"]
        _create(fresh)
        _bring_up_to_date(fresh, project)
        names = [name for (name,) in fresh.execute("SELECT name FROM sqlite_master WHERE "
                                                   "type = 'table' ORDER BY rootpage")]  # fmt: skip
        return [
            f".lapvqa/lineage.sqlite: table {name} does not say what the ledger says"
            for name in names
            if name != "state" and _content(database, name) != _content(fresh, name)
        ]


def _content(database: sqlite3.Connection, table: str) -> list[tuple[Any, ...]]:
    # Numbers of artefacts are given in the order of arrival, which an index that grew keeps too.
    return sorted(map(tuple, database.execute(f"SELECT * FROM {table}")), key=repr)


def _is_kept(project: Project) -> bool:
    """Tell whether the index may lie on the disk: not where nobody may write, or nothing was made.

    An empty clone has neither .lapvqa/ nor images, and stays as it is.
    """
    if not project.state.exists():
        return project.images.exists() and os.access(project.root, os.W_OK)
    files = [path for path in (project.state, project.lineage_index) if path.exists()]
    return all(os.access(path, os.W_OK) for path in files)


def _unkept(project: Project, trusted: bool) -> sqlite3.Connection:
    """Connect to the index as it lies there, if it is up to date; else to one in memory."""
    if trusted and os.access(project.lineage_index, os.R_OK):
        database = _connect(f"{project.lineage_index.resolve().as_uri()}?mode=ro")
        with suppress(sqlite3.DatabaseError):
            if not _changed(database, _stamps(project)):
                return database
        database.close()
    database = _connect(":memory:")
    _create(database)
    _bring_up_to_date(database, project)
    return database


def _usable(project: Project) -> sqlite3.Connection:
    """Connect to the index and bring it up to date; a damaged or foreign one is made again."""
    project.state.mkdir(parents=True, exist_ok=True)
    database = _connect(project.lineage_index)
    with suppress(sqlite3.DatabaseError):
        if not _changed(database, _stamps(project)):
            return database
    database.close()
    with _alone(project):
        database = _connect(project.lineage_index)
        try:
            _bring_up_to_date(database, project)
        except sqlite3.DatabaseError as error:
            database.close()
            if _is_busy(error):
                raise
            return _made_anew(project)
    return database


def _alone(project: Project) -> AbstractContextManager[None]:
    """Wait until no other process writes: a file replaced under a writer would be corrupted."""
    return storage.alone(project.lineage_index.with_suffix(".lock"))


def _made_anew(project: Project) -> sqlite3.Connection:
    """Make the index beside the old one, which others may be reading, then put it in its place."""
    new = project.lineage_index.with_suffix(".new")
    journals = [Path(f"{place}-journal") for place in (new, project.lineage_index)]
    for path in (new, *journals):
        path.unlink(missing_ok=True)
    with closing(_connect(new)) as database:
        _create(database)
        _bring_up_to_date(database, project)
    new.replace(project.lineage_index)
    return _connect(project.lineage_index)


def _is_busy(error: sqlite3.DatabaseError) -> bool:
    """Tell whether another process is at it, so that nothing is wrong with the file."""
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def _connect(place: Path | str) -> sqlite3.Connection:
    database = sqlite3.connect(place, timeout=30, uri=str(place).startswith("file:"))
    database.execute("PRAGMA secure_delete = ON")
    database.row_factory = sqlite3.Row
    return database


def _create(database: sqlite3.Connection) -> None:
    database.executescript(_SCHEMA)
    database.execute("INSERT INTO state VALUES ('version', ?)", (str(_VERSION),))
    database.commit()


def _bring_up_to_date(database: sqlite3.Connection, project: Project) -> None:
    now = _stamps(project)
    changed = _changed(database, now)
    database.execute("PRAGMA cache_size = -262144")  # KiB at most: keys come in random order
    with database:
        if "ledger" in changed:
            _check(database)
            _add_entries(database, ledger.entries(project))
        if changed & {"ledger", "lock"}:
            _add_present(database, project)
        for name, add in _TABLES.items():
            if name in changed:
                add(database, project)
        rows = [(name, now[name]) for name in changed]
        database.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", rows)


def _changed(database: sqlite3.Connection, now: dict[str, str]) -> set[str]:
    """Return the parts whose files are others than the index knows; _NotOurs by its version."""
    known = dict(map(tuple, database.execute("SELECT key, value FROM state")))
    if known.get("version") != str(_VERSION):
        raise _NotOurs
    return {name for name in now if known.get(name) != now[name]}


def _check(database: sqlite3.Connection) -> None:
    """Raise DatabaseError where a page is damaged: looked at before anything is added to it."""
    if database.execute("PRAGMA quick_check").fetchone()[0] != "ok":
        raise sqlite3.DatabaseError


def _stamps(project: Project) -> dict[str, str]:
    """Return the stats of the files that each part of the index is made from, as JSON."""
    root = project.root
    lock = [project.dvc_lock, *sorted(project.run_file("x").parent.glob("*.json"))]
    stats = {
        "ledger": [_stat(project.ledger), _stat(project.ledger_payloads)],
        "lock": [_stat(path) for path in lock],
        "films": _stat(project.images),
        "tokens": {path.name: _stat(path) for path in _token_files(project)},
        "predicted": {
            path.relative_to(root).as_posix(): _stat(path) for path in _prediction_files(project)
        },
    }
    return {name: json.dumps(stat) for name, stat in stats.items()}


def _stat(path: Path) -> Any:
    return hashes.stat_artefact(path, [])


def _token_files(project: Project) -> list[Path]:
    return sorted(project.tokens_dir.glob("*.parquet"))


def _prediction_files(project: Project) -> list[Path]:
    return sorted(
        path
        for folder in ("results/*", "evaluations/*/*")
        for name in (PREDICTIONS, SEALED)
        for path in project.root.glob(f"{folder}/{name}")
    )


def _add_entries(database: sqlite3.Connection, entries: list[Entry]) -> None:
    """Add what the index does not know; _NotOurs where what it knows is not this ledger's."""
    rows = database.execute(
        "SELECT id, payload IS NULL FROM entries WHERE number >= 0 ORDER BY number"
    )
    known = list(map(tuple, rows))
    if known != [(entry.id, int(entry.payload is None)) for entry in entries[: len(known)]]:
        raise _NotOurs
    _forget_present(database)  # what dvc.lock alone told of may be told of now
    for entry in entries[len(known) :]:
        _add_entry(database, entry)


def _add_entry(database: sqlite3.Connection, entry: Entry) -> None:
    text = None if entry.payload is None else json.dumps(entry.payload)
    row = (entry.number, entry.id, entry.kind, entry.time, text)
    database.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", row)
    run = runs.of_entry(entry)
    if run is not None:
        _add_run(database, entry, run, BY_RUN if _has_records(run) else OUTSIDE)
    elif entry.kind == TRAINED_ON and entry.payload is not None:
        _add_trained_on(database, entry.payload)
    elif entry.kind == CODE and entry.payload is not None:
        digest = entry.payload["digest"]
        database.execute("INSERT OR IGNORE INTO code VALUES (?, ?)", (digest, entry.number))


def _has_records(run: Run) -> bool:
    return bool(run.prefect_flow_run or run.prefect_task_run or run.mlflow_run)


def _add_run(database: sqlite3.Connection, entry: Entry, run: Run, made: str) -> None:
    number = entry.number
    database.execute(
        "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            number, entry.id, run.stage, run.started, run.seconds, run.outcome, made, run.commit,
            run.code, run.prefect_flow_run, run.prefect_task_run, run.mlflow_run,
            run.mlflow_pipeline_run,
        ),
    )  # fmt: skip
    for path, md5 in run.outs.items():
        facts = run.files.get(path, {})
        database.execute(
            "INSERT INTO artefacts (run, path, md5, sha256, bytes, rows) VALUES (?, ?, ?, ?, ?, ?)",
            (number, path, md5, facts.get("sha256"), facts.get("bytes"), facts.get("rows")),
        )
    _add_edges(database, number, run)
    database.executemany(
        "INSERT INTO metrics VALUES (?, ?, ?)",
        ((number, name, value) for name, value in run.metrics.items()),
    )


def _add_edges(database: sqlite3.Connection, number: int, run: Run) -> None:
    """Add what a run read: outputs of the runs that it names, or files within them."""
    made = {
        source: dict(
            map(tuple, database.execute(
                "SELECT path, artefact FROM artefacts JOIN runs USING (run) WHERE id = ?", (source,)
            ))
        )
        for source in set(run.sources.values())
    }  # fmt: skip
    used, inputs = [], []
    for path, md5 in run.deps.items():
        outs = made.get(run.sources.get(path, ""), {})
        around = (str(folder) for folder in PurePosixPath(path).parents)
        found = next((outs[name] for name in (path, *around) if name in outs), None)
        if found is None:
            inputs.append((number, path, md5))
        else:
            used.append((number, found))
    # Weights that a training went on from.
    for path in sorted(run.sources.keys() - run.deps.keys()):
        artefact = made[run.sources[path]].get(path)
        if artefact is not None:
            used.append((number, artefact))
    database.executemany("INSERT OR IGNORE INTO used VALUES (?, ?)", used)
    database.executemany("INSERT INTO inputs VALUES (?, ?, ?)", inputs)


def _add_trained_on(database: sqlite3.Connection, payload: dict[str, Any]) -> None:
    run = database.execute("SELECT run FROM runs WHERE id = ?", (payload["run"],)).fetchone()
    if run is None:  # erased
        return
    for role, members in payload["roles"].items():
        bitmaps = [(None, members["patients"]), *members["studies"].items()]
        for times, text in bitmaps:
            rows = unpacked(text).serialize()
            database.execute("INSERT INTO trained_on VALUES (?, ?, ?, ?)",
                             (run[0], role, times, rows))  # fmt: skip


def _forget_present(database: sqlite3.Connection) -> None:
    database.execute("DELETE FROM present")
    database.execute(
        "DELETE FROM used WHERE (run, artefact) IN (SELECT run, artefact FROM unnamed)"
    )
    database.execute("DELETE FROM unnamed")
    for table in ("used", "inputs", "artefacts", "metrics", "runs"):
        database.execute(f"DELETE FROM {table} WHERE run < 0")
    for table in ("code", "entries"):
        database.execute(f"DELETE FROM {table} WHERE number < 0")


def _add_present(database: sqlite3.Connection, project: Project) -> None:
    """Note which run made what dvc.lock names of each stage, and add the runs it alone tells of.

    Of several runs that left the same state, one that computed (has records) is meant, then the
    latest.
    """
    from lapvqa.lineage import recording

    _forget_present(database)
    locks = manifest.locked(project)
    told = [
        (
            Entry(row["number"], row["id"], RUN, row["time"], None),
            runs.of_payload(json.loads(row["payload"])),
        )
        for row in database.execute(
            "SELECT number, id, time, payload FROM entries WHERE kind = ? AND payload IS NOT NULL",
            (RUN,),
        )
    ]
    present: dict[str, tuple[tuple[bool, float], Entry]] = {}
    states = {name: recording.present_state(lock, locks) for name, lock in locks.items()}
    for entry, run in told:
        if run.stage in states and run.state() == states[run.stage]:
            rank = (_has_records(run), run.started)
            if run.stage not in present or rank >= present[run.stage][0]:
                present[run.stage] = (rank, entry)
    missing = [lock for lock in recording.upstream_first(locks) if lock.name not in present]
    for number, lock in enumerate(missing, start=1):
        sources = {stage: entry.id for stage, (_, entry) in present.items()}
        run, files = recording.from_lock(lock, locks, sources)
        listing = Entry(-2 * number, f"dvc.lock:code:{lock.name}", CODE, 0.0, files)
        _add_entry(database, listing)
        kept = recording.own_record(project, lock.name, [run for _, run in told])
        run = replace(run, started=kept.get("started", 0.0), seconds=kept.get("seconds", 0.0))
        entry = Entry(-2 * number + 1, f"dvc.lock:{lock.name}", RUN, run.started, run.payload())
        row = (entry.number, entry.id, entry.kind, entry.time, json.dumps(entry.payload))
        database.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", row)
        _add_run(database, entry, run, OUTSIDE if kept else ELSEWHERE)
        present[lock.name] = ((False, 0.0), entry)
    rows = [(stage, entry.number) for stage, (_, entry) in present.items()]
    database.executemany("INSERT INTO present VALUES (?, ?)", rows)
    _add_unnamed(database)


def _add_unnamed(database: sqlite3.Connection) -> None:
    """Find the makers that an entry could not name, since their own entries came after it.

    The latest run that left the same bytes at this path; of what dvc.lock names now, its own.
    """
    rows = database.execute(
        "SELECT i.run, path, md5, p.run IS NOT NULL FROM inputs i LEFT JOIN present p USING (run)"
    ).fetchall()
    for run, path, md5, is_present in rows:
        around = [path, *(str(folder) for folder in PurePosixPath(path).parents)]
        marks = ", ".join("?" * len(around))
        found = database.execute(
            "SELECT id, artefact FROM artefacts a JOIN runs USING (run) "
            "LEFT JOIN present p ON p.run = a.run WHERE a.run != ? AND ((a.path = ? AND md5 = ?) "
            f"OR (? AND p.run IS NOT NULL AND a.path IN ({marks}))) "
            "ORDER BY p.run IS NULL, started DESC, a.run DESC",
            (run, path, md5, is_present, *around),
        ).fetchone()
        if found is not None:
            row = (run, path, found["id"], found["artefact"])
            database.execute("INSERT INTO unnamed VALUES (?, ?, ?, ?)", row)
            database.execute("INSERT OR IGNORE INTO used VALUES (?, ?)", (run, found["artefact"]))


def _add_films(database: sqlite3.Connection, project: Project) -> None:
    database.execute("DELETE FROM films")
    columns = ["file_sha256", "image_key", "study_key", "patient_key", "split", "shard", "row"]
    images = _columns(project.images, columns)
    for batch in images.to_batches() if images is not None else ():
        database.executemany("INSERT INTO films VALUES (?, ?, ?, ?, ?, ?, ?)", _rows(batch))


def _add_token_rows(database: sqlite3.Connection, project: Project) -> None:
    database.execute("DELETE FROM token_rows")
    for path in _token_files(project):
        table = _columns(path, ["study_key"])
        if table is not None:
            keys = table["study_key"].to_pylist()
            rows = ((key, path.name, row) for row, key in enumerate(keys))
            database.executemany("INSERT INTO token_rows VALUES (?, ?, ?)", rows)


def _add_predicted(database: sqlite3.Connection, project: Project) -> None:
    database.execute("DELETE FROM predicted")
    for path in _prediction_files(project):
        for item in ("image", "sample"):
            table = _columns(path, ["patient", item])
            if table is not None:
                counts = table.group_by(["patient", item]).aggregate([([], "count_all")])
                name = path.relative_to(project.root).as_posix()
                rows = ((name, *row) for row in zip(*(
                    counts[column].to_pylist() for column in ("patient", item, "count_all")
                ), strict=True))  # fmt: skip
                database.executemany("INSERT INTO predicted VALUES (?, ?, ?, ?)", rows)
                break


def _columns(path: Path, names: list[str]) -> pa.Table | None:
    """Return columns of a Parquet file; None if it is none, or lacks one of them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        return file.read(names) if set(names) <= set(file.schema_arrow.names) else None
    except (pa.ArrowInvalid, OSError):
        return None


def _rows(batch: pa.RecordBatch) -> Iterator[tuple[object, ...]]:
    return zip(*(column.to_pylist() for column in batch.columns), strict=True)


_TABLES: dict[str, Callable[[sqlite3.Connection, Project], None]] = {
    "films": _add_films, "tokens": _add_token_rows, "predicted": _add_predicted,
}  # fmt: skip
