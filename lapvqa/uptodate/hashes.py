"""md5 of a file or a folder, equal to what DVC writes into dvc.lock.

A folder's md5 is that of the JSON list of its files' md5 and relative paths, sorted by path, with
``.dir`` behind it. .dvcignore counts: patterns of plain names only; with a pattern that this
reader does not know the folder's md5 differs from DVC's, and the stage counts as stale.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lapvqa.project import Project

Stat = tuple[int, int, int]
"""Size in bytes, modification time in ns, inode: what changes when a file is written."""


@dataclass(frozen=True)
class FileFacts:
    """One file: its stat and its md5."""

    stat: Stat
    md5: str


Artefact = dict[str, FileFacts]
"""Path within a folder (``""`` for a single file) -> facts."""


class TooMuchToHashError(Exception):
    """More bytes would have to be read than the caller allows."""


class Hasher:
    """Hashes artefacts of one project; a file whose stat is known is not read again.

    ``budget`` limits the bytes read from disk in all; beyond it TooMuchToHashError.
    """

    def __init__(
        self, project: Project, known: dict[str, Artefact], *, budget: float = math.inf
    ) -> None:
        self._root = project.root
        self._known = known
        self._ignored = ignored_names(project)
        self._budget = budget
        self._found: dict[str, Artefact | None] = {}

    def artefact(self, path: str) -> Artefact | None:
        """Return the facts of every file at ``path`` (relative); None if nothing is there."""
        if path not in self._found:
            self._found[path] = self._hash(path)
        return self._found[path]

    def md5(self, path: str) -> str | None:
        """Return the md5 of the artefact at ``path`` (relative); None if nothing is there."""
        artefact = self.artefact(path)
        return None if artefact is None else md5_artefact(artefact)

    def changed_files(self, path: str) -> list[str]:
        """Return the files of ``path`` that differ from the known ones; empty if none is known."""
        before, now = self._known.get(path), self.artefact(path) or {}
        if before is None:
            return []
        names = sorted(before.keys() | now.keys())
        return [name for name in names if _md5_in(before, name) != _md5_in(now, name)]

    def _hash(self, path: str) -> Artefact | None:
        stats = stat_artefact(self._root / path, self._ignored)
        if stats is None:
            return None
        known = self._known.get(path, {})
        return {
            name: known[name]
            if name in known and known[name].stat == stat
            else FileFacts(stat, self._read(self._root / path / name, stat[0]))
            for name, stat in stats.items()
        }

    def _read(self, path: Path, size: int) -> str:
        self._budget -= size
        if self._budget < 0:
            raise TooMuchToHashError
        try:
            return md5_file(path)
        except FileNotFoundError:  # gone meanwhile, or a dangling link: equal to nothing
            return ""


def md5_file(path: Path) -> str:
    """Return the hex md5 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "md5").hexdigest()


def md5_artefact(artefact: Artefact) -> str:
    """Return the md5 that dvc.lock would name for these files."""
    if set(artefact) == {""}:
        return artefact[""].md5
    listing = [{"md5": artefact[name].md5, "relpath": name} for name in sorted(artefact)]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest() + ".dir"


def ignored_names(project: Project) -> list[str]:
    """Return the name patterns of .dvcignore, and the folders that DVC never enters."""
    path = project.root / ".dvcignore"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    patterns = [line.strip().rstrip("/") for line in lines]
    return [".git", ".hg", ".dvc", *(p for p in patterns if p and not p.startswith("#"))]


def stat_artefact(path: Path, ignored: list[str]) -> dict[str, Stat] | None:
    """Return path within the folder -> Stat (``""`` for a single file); None if absent."""
    try:
        stat = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not path.is_dir():
        return {"": (stat.st_size, stat.st_mtime_ns, stat.st_ino)}
    return dict(_walk(path, "", ignored))


def _walk(folder: Path, prefix: str, ignored: list[str]) -> Iterator[tuple[str, Stat]]:
    with os.scandir(folder) as items:
        for item in items:
            if any(fnmatch.fnmatch(item.name, pattern) for pattern in ignored):
                continue
            if item.is_dir():
                yield from _walk(Path(item.path), f"{prefix}{item.name}/", ignored)
            else:
                stat = item.stat(follow_symlinks=Path(item.path).exists())
                yield prefix + item.name, (stat.st_size, stat.st_mtime_ns, stat.st_ino)


def _md5_in(artefact: Artefact, name: str) -> str | None:
    return artefact[name].md5 if name in artefact else None
