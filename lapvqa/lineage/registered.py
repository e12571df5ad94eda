"""Registered versions of the encoder: of the ledger, and of MLflow's embedded store read directly.

An entry of kind MODEL says {"name", "version", "aliases": [...], "sha256" of encoder.safetensors};
a later one of the same version replaces it. Importing MLflow takes 3 s, so its SQLite file is read
as it is; a served MLflow is not asked: lineage needs no network.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass

from lapvqa.lineage.ledger import MODEL
from lapvqa.project import Project

_VERSIONS = """
SELECT v.name, v.version, v.run_id, t.value AS sha256,
       (SELECT json_group_array(alias) FROM registered_model_aliases a
        WHERE a.name = v.name AND a.version = v.version) AS aliases
FROM model_versions v LEFT JOIN model_version_tags t
     ON t.name = v.name AND t.version = v.version AND t.key = 'sha256'
"""


@dataclass(frozen=True)
class Version:
    """One registered version."""

    name: str
    version: str
    aliases: tuple[str, ...]
    sha256: str | None
    """Of its encoder.safetensors."""
    mlflow_run: str | None = None

    @property
    def title(self) -> str:
        """``lapvqa-encoder 3 (champion)``."""
        aliases = f" ({', '.join(self.aliases)})" if self.aliases else ""
        return f"{self.name} {self.version}{aliases}"


def versions(project: Project, database: sqlite3.Connection) -> list[Version]:
    """Return all versions; what MLflow's own store says comes before the ledger's entries."""
    found: dict[tuple[str, str], Version] = {}
    aliases: dict[tuple[str, str], tuple[str, str]] = {}
    rows = database.execute(
        "SELECT payload FROM entries WHERE kind = ? AND payload IS NOT NULL ORDER BY number",
        (MODEL,),
    )
    for row in rows:
        said = json.loads(row["payload"])
        key = (str(said.get("name", "")), str(said.get("version", "")))
        found[key] = Version(*key, (), said.get("sha256"), said.get("mlflow_run"))
        for alias in said.get("aliases", []):
            aliases[key[0], alias] = key  # an alias is of one version: the last that got it
    for (_, alias), key in aliases.items():
        version = found[key]
        found[key] = Version(*key, (*version.aliases, alias), version.sha256, version.mlflow_run)
    return list((found | _of_mlflow(project)).values())


def _of_mlflow(project: Project) -> dict[tuple[str, str], Version]:
    if not project.mlflow_db.exists():
        return {}
    address = f"{project.mlflow_db.as_uri()}?mode=ro"
    # Another version of MLflow may have other tables: then the ledger alone answers.
    with suppress(sqlite3.Error), closing(sqlite3.connect(address, uri=True)) as store:
        return {
            (name, str(version)): Version(
                name, str(version), tuple(json.loads(aliases)), sha256, run
            )
            for name, version, run, sha256, aliases in store.execute(_VERSIONS)
        }
    return {}
