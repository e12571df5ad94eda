""".lapvqa/uptodate.json: what the last run left, so that the next check reads almost nothing.

It holds no verdict: dvc.lock is the record, the manifest only spares parsing the YAML files
(valid while their hashes are the same) and hashing the artefacts (valid while their stat is).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lapvqa import storage
from lapvqa.project import Project
from lapvqa.uptodate import input_folders, stagefile
from lapvqa.uptodate.hashes import Artefact, FileFacts, Hasher
from lapvqa.uptodate.input_folders import Listing, Places
from lapvqa.uptodate.stagefile import LockedStage, Stage

VERSION = 2


@dataclass(frozen=True)
class Manifest:
    """What the last run left."""

    texts: dict[str, str | None]
    """Configuration file -> sha256 of its bytes; None if there was none."""
    stages: dict[str, Stage]
    """All stages of dvc.yaml, upstream first."""
    locks: dict[str, LockedStage]
    """All stages of dvc.lock."""
    params: dict[str, Any]
    """All of params.yaml."""
    places: Places
    listings: dict[str, Listing]
    """What was listed of each input folder."""
    artefacts: dict[str, Artefact]
    """Every dependency and output of dvc.lock, by path."""


def texts(project: Project) -> dict[str, str | None]:
    """Return the hash of each configuration file; None if it is not there."""
    paths = (project.dvc_yaml, project.dvc_lock, project.params, project.local)
    return {path.name: _sha256(path) for path in paths}


def load(project: Project) -> Manifest | None:
    """Read the manifest; None if there is none of this version, or it is of another folder."""
    try:
        raw = json.loads(project.uptodate.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    # A moved or copied project has its input elsewhere: what was known of the old place is void.
    if raw.pop("version", None) != VERSION or raw.pop("root") != str(project.root.resolve()):
        return None
    raw["stages"] = {item["name"]: _stage(item) for item in raw["stages"]}
    raw["locks"] = {name: LockedStage(**item) for name, item in raw["locks"].items()}
    raw["places"] = Places(**raw["places"])
    raw["listings"] = {name: Listing(**item) for name, item in raw["listings"].items()}
    raw["artefacts"] = {path: _artefact(files) for path, files in raw["artefacts"].items()}
    return Manifest(**raw)


def locked(project: Project) -> dict[str, LockedStage]:
    """Return what ``stagefile.locked`` does, without parsing YAML while dvc.lock is the same."""
    known = load(project)
    if known is not None and known.texts.get("dvc.lock") == _sha256(project.dvc_lock):
        return known.locks
    return stagefile.locked(project)


def remember(project: Project) -> None:
    """Write the manifest of the project as it is now; hashes what it does not know yet."""
    from lapvqa.params import read_yaml

    texts_now = texts(project)  # first: a later edit must not pass for what is read below
    before = load(project)
    hasher = Hasher(project, before.artefacts if before else {})
    locks = stagefile.locked(project)
    paths = sorted({path for lock in locks.values() for path in (*lock.deps, *lock.outs)})
    manifest = Manifest(
        texts=texts_now,
        stages=stagefile.declared(project),
        locks=locks,
        params=read_yaml(project.params),
        places=input_folders.places(project),
        listings=input_folders.listings(project),
        artefacts={path: files for path in paths if (files := hasher.artefact(path)) is not None},
    )
    plain = asdict(manifest)
    plain["stages"] = list(plain["stages"].values())  # a list keeps its order
    plain["artefacts"] = {path: _plain(files) for path, files in manifest.artefacts.items()}
    place = str(project.root.resolve())
    storage.write_json(project.uptodate, {"version": VERSION, "root": place, **plain})


def _sha256(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


def _stage(item: dict[str, Any]) -> Stage:
    return Stage(**{**item, **{key: tuple(item[key]) for key in ("deps", "outs", "params")}})


def _artefact(files: dict[str, list[Any]]) -> Artefact:
    return {
        name: FileFacts((size, mtime_ns, inode), md5)
        for name, (size, mtime_ns, inode, md5) in files.items()
    }


def _plain(files: Artefact) -> dict[str, list[Any]]:
    return {name: [*facts.stat, facts.md5] for name, facts in files.items()}
