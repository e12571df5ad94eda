"""``lapvqa whois``: from a keyed hash back to the files of the archive, for who holds the key.

What ingest keeps of each file it has read (``.lapvqa/work/ingest``, private to this machine) has
both. It outlives a change of the archive, so only rows of the present one count. Each question is
kept with its asker in ``.lapvqa/whois.jsonl``.
"""

from __future__ import annotations

import getpass
import json
import os
import time
from pathlib import Path
from typing import Any

from flows.commands import terminal
from lapvqa import storage
from lapvqa.errors import ConfigError
from lapvqa.identity import find_key, key_id
from lapvqa.inventory import told
from lapvqa.machine import load_machine
from lapvqa.params import load_params
from lapvqa.project import Project

LOG = "whois.jsonl"
_SHORTEST = 8
_IMAGE_KEYS = ("image_key", "instance_key")
_KEYS = ("study_key", "patient_key", *_IMAGE_KEYS)


def execute(project: Project, asked: str) -> int:
    """Print the files behind a key of a study, patient or image, or behind a file's own UID."""
    source = _require_key(project)
    rows = rows_of(project)
    found = [row for row in rows if _is_meant(row, asked)]
    _log(project, asked, len(found))
    if not found:
        raise ConfigError(
            "expected a key, or a path within the archive, of a file that ingest has read; found "
            "none of it",
            hint=f"give the {_SHORTEST} first digits of a key, or more; reports are named by "
            "`lapvqa rejects --files`",
        )
    console, same = terminal.console(), by_uid(rows)
    console.print(f"in {source}:", markup=False, soft_wrap=True)
    for row in sorted(found, key=lambda one: str(one["path"])):
        fate = row["reason"] or "read"
        console.print(
            f"{row['path']}: {fate}, image {row['image_key'] or 'unknown'}, study "
            f"{row['study_key'] or 'unknown'}, patient {row['patient_key'] or 'unknown'}",
            markup=False, soft_wrap=True,
        )  # fmt: skip
        for twin in twins(str(row["path"]), same):
            console.print(f"  the same image UID: {twin}", markup=False, soft_wrap=True)
    return 0


def _require_key(project: Project) -> Path:
    """Return the archive's folder; ConfigError unless its key is here, and the one ingest used."""
    machine, inventory = load_machine(project), load_params(project.params).inventory
    folder = machine.folder("source", inventory, project)
    key = find_key(folder, project, machine)
    import pyarrow.parquet as pq

    listed = storage.require(project.inventory("source"), made_by="inventory")
    facts = pq.read_schema(listed).metadata or {}
    if facts.get(b"folder", b"").decode() != told(folder, project):
        raise ConfigError(
            f"expected an inventory of {folder}, found that of another archive",
            hint="run `lapvqa run` first: params.yaml or local.yaml names another one since",
        )
    used = facts.get(b"deid_key", b"").decode()
    if key is None or key_id(key) != used:
        raise ConfigError(
            f"expected the key {used or 'of the inventory'} that hid the identifiers, found "
            f"{'none' if key is None else key_id(key)}",
            hint="name its file in local.yaml: deid_key_file; only who holds it may ask",
        )
    return folder


def rows_of(project: Project) -> list[dict[str, Any]]:
    """Return what is kept of the present archive's files, a row a file.

    Ingest keeps a store for each of the last archives, keys and versions of its code. A row is of
    the present archive if the inventory lists its file by path, size and time, as ingest itself
    asks; of several stores the one counts that knows most of the images in data/, then the newest.
    Raises ConfigError if none is kept, MissingArtifactError without an inventory.
    """
    import pyarrow.compute as pc

    asked = ["path", "size", "mtime_ns"]
    listed = storage.read_columns(project.inventory("source"), asked)
    present = None
    if project.images.exists():
        present = storage.read_columns(project.images, ["image_key"])["image_key"]
    stores = []
    for folder in {path.parent for path in project.work_dir("ingest").glob("*/rows-*.parquet")}:
        rows: dict[str, dict[str, Any]] = {}
        known = 0
        for path in sorted(folder.glob("rows-*.parquet"), key=lambda one: one.stat().st_mtime_ns):
            table = storage.read_columns(path, [*asked, "reason", *_KEYS])
            table = table.join(listed, keys=asked, join_type="left semi")
            rows |= {row["path"]: row for row in table.to_pylist()}
            if present is not None:
                known += pc.sum(pc.is_in(table["image_key"], value_set=present)).as_py() or 0
        if rows and (known or present is None):
            stores.append((known, folder.stat().st_mtime_ns, rows))
    if not stores:
        raise ConfigError(
            "expected what ingest keeps of the files it has read of this archive, found nothing: "
            "it was read elsewhere, or since then others were",
            hint="ask where the archive was ingested, or have it read again here: "
            "`dvc repro --single-item --force ingest` (`lapvqa run` takes from DVC's cache what "
            "it can)",
        )
    return list(max(stores, key=lambda store: store[:2])[2].values())


def _is_meant(row: dict[str, Any], asked: str) -> bool:
    if row["path"] == asked:
        return True
    return len(asked) >= _SHORTEST and any(str(row[key] or "").startswith(asked) for key in _KEYS)


def by_uid(rows: list[dict[str, Any]]) -> dict[str, set[str]]:
    """Return path -> the paths of all files with the same image UID, or named after it; itself."""
    paths: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        for name in _IMAGE_KEYS:
            if row[name]:
                paths.setdefault((name, row[name]), set()).add(row["path"])
    same: dict[str, set[str]] = {}
    for group in paths.values():
        for path in group if len(group) > 1 else ():
            same.setdefault(path, set()).update(group)
    return same


def twins(path: str, same: dict[str, set[str]]) -> list[str]:
    """Return the other files that ``by_uid`` puts beside this one, sorted."""
    return sorted(same.get(path, set()) - {path})


def _log(project: Project, asked: str, found: int) -> None:
    project.state.mkdir(parents=True, exist_ok=True)
    line = {"time": time.time(), "user": getpass.getuser(), "asked": asked, "files": found}
    descriptor = os.open(project.state / LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "a", encoding="utf-8") as handle:
        handle.write(json.dumps(line) + "\n")
