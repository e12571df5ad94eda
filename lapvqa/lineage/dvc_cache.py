"""What DVC's cache on this disk holds of an md5, without importing DVC: bytes, or a folder's list.

An older version of an artefact is there as long as nobody has collected it.
"""

from __future__ import annotations

import configparser
import json
from collections.abc import Iterator
from pathlib import Path

from lapvqa.project import Project
from lapvqa.uptodate import hashes, manifest
from lapvqa.uptodate.hashes import Artefact


def stored(project: Project, md5: str) -> Path | None:
    """Return the file of the cache with these bytes; None if it is not there."""
    path = folder(project) / "files" / "md5" / md5[:2] / md5[2:]
    return path if len(md5) > 2 and path.is_file() else None


def listing(project: Project, md5: str) -> dict[str, str] | None:
    """Return path within a folder -> md5; None if the cache does not know the folder."""
    path = stored(project, md5) if md5.endswith(".dir") else None
    if path is None:
        return None
    return {item["relpath"]: item["md5"] for item in json.loads(path.read_bytes())}


def files(project: Project, path: str, md5: str) -> dict[str, str] | None:
    """Return path within an artefact -> md5 (``""`` for a file); None if nobody here knows them.

    A folder's are told by the cache, or by the manifest of the last complete run.
    """
    if not md5.endswith(".dir"):
        return {"": md5}
    listed = listing(project, md5)
    known = manifest.load(project) if listed is None else None
    there = known.artefacts.get(path, {}) if known else {}
    if there and hashes.md5_artefact(there) == md5:
        return {name: facts.md5 for name, facts in there.items()}
    return listed


def spoilt(project: Project, path: str, md5: str, found: Artefact) -> Iterator[Path]:
    """Yield those objects of what ``found`` lacks of ``md5`` whose bytes are not their name's.

    They were written over through a hard link. As long as one is there, it is what DVC brings back.
    """
    for name, digest in (files(project, path, md5) or {}).items():
        if name in found and found[name].md5 == digest:
            continue
        file = stored(project, digest)
        if file is not None and hashes.md5_file(file) != digest:
            yield file


def folder(project: Project) -> Path:
    """Return DVC's cache: .dvc/cache, or what cache.dir of its settings names."""
    settings = configparser.ConfigParser()
    settings.read([project.root / ".dvc" / "config", project.root / ".dvc" / "config.local"])
    named = settings.get("cache", "dir", fallback="").strip("'\" ")
    return project.root / ".dvc" / (named or "cache")
