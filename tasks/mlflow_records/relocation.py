"""MLflow's embedded store writes absolute paths: after a move or a copy they are set right.

Else a moved project's records would be written into the old place, and a copy's into the original.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing

from lapvqa.project import Project

EXPERIMENT = "lapvqa"
_COLUMNS = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "model_versions": ("source", "storage_location"),
    "logged_models": ("artifact_location",),
}


def relocate(project: Project) -> bool:
    """Point the store under .lapvqa/ to its own folder; return whether it pointed elsewhere.

    In one transaction, so that a kill leaves all paths old or all new.
    """
    if not project.mlflow_db.exists():
        return False
    here = project.mlflow_artifacts.as_uri()
    with closing(sqlite3.connect(project.mlflow_db)) as database, database:
        database.execute("BEGIN IMMEDIATE")
        found = database.execute(
            "SELECT artifact_location FROM experiments WHERE name = ?", (EXPERIMENT,)
        ).fetchone()
        if found is None or found[0] == here:
            return False
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
        for table in tables & _COLUMNS.keys():
            for column in _COLUMNS[table]:
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, length(?) + 1) "
                    f"WHERE substr({column}, 1, length(?)) = ?",
                    (here, found[0], found[0], found[0]),
                )
    return True
