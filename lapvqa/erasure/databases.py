"""SQLite forgets nothing by itself: deleted rows stay in free pages and in the write-ahead log.

So a trace is overwritten in its row, and then the whole file is written anew: secure_delete, a
checkpoint that empties the log, VACUUM.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from lapvqa.errors import BusyError

SUFFIXES = ("-wal", "-shm", "-journal")
IN_PLACE = "[erased]"


def is_database(path: Path) -> bool:
    """Tell whether a file is an SQLite database."""
    try:
        with path.open("rb") as handle:
            return handle.read(16) == b"SQLite format 3\0"
    except OSError:
        return False


def overwrite(path: Path, texts: Iterable[str], *, wait_s: float = 10.0) -> int:
    """Put IN_PLACE where a text stands in any row, and leave no old page; return changed values.

    Raises BusyError while another process has the database open.
    """
    try:
        with closing(sqlite3.connect(path, timeout=wait_s, isolation_level=None)) as database:
            # Prefect's columns have it as default: to write the schema anew it must be known.
            database.create_function("GEN_RANDOM_UUID", 0, lambda: str(uuid.uuid4()))
            database.execute("PRAGMA secure_delete = ON")
            database.execute("PRAGMA foreign_keys = OFF")
            changed = sum(_overwrite_in(database, *column, texts=list(texts))
                          for column in _columns(database))  # fmt: skip
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            database.execute("VACUUM")
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return changed
    except sqlite3.OperationalError as error:
        raise BusyError(
            f"expected to write {path.name} anew, found: {error}",
            hint="close what has it open (`mlflow ui`, `prefect server`), then run the same again; "
            "it continues from here",
        ) from None


def _columns(database: sqlite3.Connection) -> list[tuple[str, str]]:
    tables = database.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    ).fetchall()
    return [
        (table, row[1])
        for (table,) in tables
        for row in database.execute(f'PRAGMA table_info("{table}")')
    ]


def _overwrite_in(
    database: sqlite3.Connection, table: str, column: str, *, texts: list[str]
) -> int:
    changed = 0
    for text in texts:
        done = database.execute(
            f'UPDATE OR REPLACE "{table}" SET "{column}" = replace("{column}", ?, ?) '
            f'WHERE typeof("{column}") = \'text\' AND instr("{column}", ?)',
            (text, IN_PLACE, text),
        )
        changed += done.rowcount
    return changed
