"""The index: the ledger and the tables of images, as SQLite, so that a question takes a moment.

.lapvqa/lineage.sqlite is no truth: it is brought up to date from the ledger each time it is opened,
and made again where it is damaged, of another version, or not of this ledger. A rollback journal
and no WAL, which corrupts on NFS, Lustre and GPFS; what is deleted is overwritten.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pyarrow as pa

from lapvqa import storage
from lapvqa.lineage import first_ledger, ledger, runs
from lapvqa.lineage.ledger import TRAINED_ON, Entry
from lapvqa.lineage.row_numbers import unpacked
from lapvqa.lineage.runs import Run
from lapvqa.project import Project
from lapvqa.schemas import IMAGES
from lapvqa.uptodate import hashes

_VERSION = 1

_SCHEMA = """
CREATE TABLE entries (number INTEGER PRIMARY KEY, id TEXT UNIQUE, kind TEXT, time REAL,
                      payload TEXT);               -- JSON; NULL once erased
CREATE TABLE runs (run INTEGER PRIMARY KEY,        -- number of its entry
                   id TEXT UNIQUE, stage TEXT, started REAL, seconds REAL, outcome TEXT,
                   commit_sha TEXT, code TEXT, prefect_flow_run TEXT, prefect_task_run TEXT,
                   mlflow_run TEXT);
CREATE INDEX runs_stage ON runs (stage, started);
CREATE TABLE artefacts (artefact INTEGER PRIMARY KEY, run INTEGER, path TEXT, md5 TEXT,
                        sha256 TEXT, bytes INTEGER, rows INTEGER, UNIQUE (run, path));
CREATE INDEX artefacts_path ON artefacts (path);
CREATE INDEX artefacts_md5 ON artefacts (md5);
CREATE INDEX artefacts_sha256 ON artefacts (sha256);
CREATE TABLE used (run INTEGER, artefact INTEGER, PRIMARY KEY (run, artefact)) WITHOUT ROWID;
CREATE INDEX used_by ON used (artefact);
CREATE TABLE inputs (run INTEGER, path TEXT, md5 TEXT);   -- data whose maker is not known
CREATE TABLE metrics (run INTEGER, name TEXT, value REAL, PRIMARY KEY (run, name)) WITHOUT ROWID;
CREATE TABLE trained_on (run INTEGER, role TEXT, times INTEGER,  -- times NULL: the patients
                         rows BLOB);               -- a roaring bitmap of row numbers
CREATE TABLE films (file_sha256 TEXT, image_key TEXT, study_key TEXT, patient_key TEXT,
                    split TEXT, shard TEXT, row INTEGER);
CREATE INDEX films_file ON films (file_sha256);
CREATE INDEX films_image ON films (image_key);
CREATE INDEX films_study ON films (study_key);
CREATE INDEX films_patient ON films (patient_key);
CREATE TABLE state (key TEXT PRIMARY KEY, value TEXT);
"""


@contextmanager
def opened(project: Project) -> Iterator[sqlite3.Connection]:
    """Open the index of a project, brought up to date; rows come as ``sqlite3.Row``."""
    first_ledger.take_over(project)
    with closing(_usable(project)) as database:
        database.row_factory = sqlite3.Row
        with database:
            _add_entries(database, ledger.entries(project))
            _add_films(database, project)
        yield database


def rebuild(project: Project) -> None:
    """Make the index again from the ledger and the tables."""
    project.lineage_index.unlink(missing_ok=True)
    with opened(project):
        pass


def _usable(project: Project) -> sqlite3.Connection:
    """Connect to the index if it is whole, of this version and this ledger; else to a new one."""
    database = _connect(project)
    try:
        whole = database.execute("PRAGMA quick_check").fetchone()[0] == "ok"
        if whole and _is_of(database, project):
            return database
    except sqlite3.DatabaseError:
        pass
    database.close()
    project.lineage_index.unlink()
    database = _connect(project)
    database.executescript(_SCHEMA)
    database.execute("INSERT INTO state VALUES ('version', ?)", (str(_VERSION),))
    database.commit()
    return database


def _connect(project: Project) -> sqlite3.Connection:
    project.state.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(project.lineage_index, timeout=30)
    database.execute("PRAGMA secure_delete = ON")
    return database


def _is_of(database: sqlite3.Connection, project: Project) -> bool:
    state = dict(database.execute("SELECT key, value FROM state"))
    if state.get("version") != str(_VERSION):
        return False
    known = database.execute("SELECT id, payload IS NULL FROM entries ORDER BY number").fetchall()
    now = [(entry.id, int(entry.payload is None)) for entry in ledger.entries(project)]
    return known == now[: len(known)]


def _add_entries(database: sqlite3.Connection, entries: list[Entry]) -> None:
    known = database.execute("SELECT count(*) FROM entries").fetchone()[0]
    for entry in entries[known:]:
        text = None if entry.payload is None else json.dumps(entry.payload)
        row = (entry.number, entry.id, entry.kind, entry.time, text)
        database.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", row)
        run = runs.of_entry(entry)
        if run is not None:
            _add_run(database, entry, run)
        elif entry.kind == TRAINED_ON and entry.payload is not None:
            _add_trained_on(database, entry.payload)


def _add_run(database: sqlite3.Connection, entry: Entry, run: Run) -> None:
    number = entry.number
    database.execute(
        "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            number, entry.id, run.stage, run.started, run.seconds, run.outcome, run.commit,
            run.code, run.prefect_flow_run, run.prefect_task_run, run.mlflow_run,
        ),
    )  # fmt: skip
    for path, md5 in run.outs.items():
        facts = run.files.get(path, {})
        database.execute(
            "INSERT INTO artefacts (run, path, md5, sha256, bytes, rows) VALUES (?, ?, ?, ?, ?, ?)",
            (number, path, md5, facts.get("sha256"), facts.get("bytes"), facts.get("rows")),
        )
    for path, md5 in run.deps.items():
        _add_used(database, number, path, md5, run.sources.get(path))
    database.executemany(
        "INSERT INTO metrics VALUES (?, ?, ?)",
        ((number, name, value) for name, value in run.metrics.items()),
    )


def _add_used(
    database: sqlite3.Connection, number: int, path: str, md5: str, source: str | None
) -> None:
    """Add the edge from a dependency to its run; a file within an output folder is the folder's."""
    made = database.execute(
        "SELECT artefact FROM artefacts JOIN runs USING (run) WHERE id = ? "
        "AND (path = ? OR substr(?, 1, length(path) + 1) = path || '/')",
        (source, path, path),
    ).fetchone()
    if made is None:
        database.execute("INSERT INTO inputs VALUES (?, ?, ?)", (number, path, md5))
    else:
        database.execute("INSERT OR IGNORE INTO used VALUES (?, ?)", (number, made[0]))


def _add_trained_on(database: sqlite3.Connection, payload: dict[str, object]) -> None:
    (number,) = database.execute("SELECT run FROM runs WHERE id = ?", (payload["run"],)).fetchone()
    roles = payload["roles"]
    assert isinstance(roles, dict)
    for role, members in roles.items():
        bitmaps = [(None, members["patients"]), *members["studies"].items()]
        for times, text in bitmaps:
            rows = unpacked(text).serialize()
            database.execute(
                "INSERT INTO trained_on VALUES (?, ?, ?, ?)", (number, role, times, rows)
            )


def _add_films(database: sqlite3.Connection, project: Project) -> None:
    """Read images.parquet, if it is another one than the index knows."""
    stats = hashes.stat_artefact(project.images, [])
    now = json.dumps(stats)
    known = database.execute("SELECT value FROM state WHERE key = 'films'").fetchone()
    if known is not None and known[0] == now:
        return
    database.execute("DELETE FROM films")
    if stats is not None:
        columns = ["file_sha256", "image_key", "study_key", "patient_key", "split", "shard", "row"]
        images = storage.read_table(project.images, IMAGES, made_by="ingest").select(columns)
        for batch in images.to_batches():
            database.executemany("INSERT INTO films VALUES (?, ?, ?, ?, ?, ?, ?)", _rows(batch))
    database.execute("INSERT OR REPLACE INTO state VALUES ('films', ?)", (now,))


def _rows(batch: pa.RecordBatch) -> Iterator[tuple[object, ...]]:
    return zip(*(column.to_pylist() for column in batch.columns), strict=True)
