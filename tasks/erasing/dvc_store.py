"""DVC's cache and remotes: single objects deleted by hash, with the lists and runs that name them.

DVC has no command for it (3.67): `dvc gc` deletes every object that no longer is in use, here those
are deleted that hold a trace, folders' lists (``.dir``) that name one of them, entries of the run
cache that would bring one back, and report pages that were made while the patient was in the data.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lapvqa.erasure.search import Needles, kinds_in_file
from lapvqa.erasure.stores import NAMES_ONE, Finding, Searched, only_names_files
from lapvqa.erasure.traces import Traces
from lapvqa.lineage import recording
from lapvqa.project import Project
from lapvqa.uptodate.stagefile import locked
from tasks.dvc_repository import repository

DERIVED = "derived"
"""Kind of a page that was made of what holds traces."""
_PAGE = "report"
_LISTING = frozenset({"inventory", "ingest"})
_DIR = ".dir"


@dataclass
class DvcObjects:
    """The objects of DVC's cache, or of one remote."""

    project: Project
    remote: str | None = None
    known: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Kinds of traces in objects that were searched elsewhere under the same hash."""
    method: str = "objects deleted by hash through DVC's object store; lists and run cache too"

    def __post_init__(self) -> None:
        """Begin with nothing searched."""
        self.searched: dict[str, frozenset[str]] = {}

    @property
    def name(self) -> str:
        """The name in receipts."""
        return f"DVC remote {self.remote}" if self.remote else "DVC cache"

    def tables(self) -> list[Path]:
        """Return the tables among the objects of the local cache, older versions too."""
        with self._open() as (odb, _):
            paths = [Path(odb.oid_to_path(oid)) for oid in _all(odb)]
        return [path for path in paths if _begins_with(path, b"PAR1")]

    def search(self, traces: Traces) -> Searched:
        """Search every object; the bytes of a remote's that are not known already are fetched."""
        needles, sizes = traces.needles(), {}
        self.searched.clear()
        with self._open() as (odb, _):
            for oid in _all(odb):
                path = odb.oid_to_path(oid)
                sizes[oid] = int(odb.fs.size(path) or 0)
                self.searched[oid] = (
                    self.known[oid] if oid in self.known else _kinds(odb, path, needles)
                )
            lists = _lists(odb, self.searched)
        current = self._current(lists)
        found = {oid: tuple(sorted(kinds)) for oid, kinds in self.searched.items() if kinds}
        found |= {oid: (NAMES_ONE,) for oid in _naming(lists, set(found)) if oid not in found}
        held = {oid for oid, kinds in found.items() if not only_names_files(kinds)}
        pages = self._pages(held | _naming(lists, held), lists)
        found |= {oid: (DERIVED,) for oid in pages if oid in sizes and oid not in found}
        findings = (
            Finding(oid, kinds, sizes[oid], oid in current and only_names_files(kinds))
            for oid, kinds in sorted(found.items())
        )
        return Searched(self.name, len(sizes), sum(sizes.values()), tuple(findings))

    def remove(self, findings: Sequence[Finding], traces: Traces, *, keep_listings: bool) -> int:
        """Delete the objects; what only lists the archive's files, as it is now, stays."""
        del traces
        removed = 0
        with self._open() as (odb, runs):
            current = self._current(_lists(odb, _all(odb)))
            listing = {f.item for f in findings if only_names_files(f.kinds)} & current
            gone = {finding.item for finding in findings} - (listing if keep_listings else set())
            for oid in sorted(gone):
                if odb.exists(oid):
                    odb.delete(oid)
                    removed += 1
            removed += _forget_runs(runs, odb.fs, gone)
        return removed

    @contextmanager
    def _open(self) -> Iterator[tuple[Any, str]]:
        """Yield the object database, and the folder of the run cache beside it."""
        with repository(self.project.root) as repo:
            if self.remote is None:
                yield repo.cache.local, str(Path(repo.cache.local_cache_dir) / "runs")
            else:
                remote = repo.cloud.get_remote(self.remote)
                yield remote.odb, remote.fs.join(remote.path, "runs")

    def _pages(self, contaminated: set[str], lists: Mapping[str, set[str]]) -> set[str]:
        """Return the outputs of report stages that had a contaminated object among their inputs.

        A page shows pictures and sentences without a key beside them.
        """
        made = [(run.stage, run.deps, run.outs) for run in recording.told(self.project)]
        made += [(lock.name, lock.deps, lock.outs) for lock in locked(self.project).values()]
        pages: set[str] = set()
        for stage, deps, outs in made:
            if stage == _PAGE and contaminated & set(deps.values()):
                for oid in outs.values():
                    pages |= {oid, *lists.get(oid, ())}
        return pages

    def _current(self, lists: Mapping[str, set[str]]) -> set[str]:
        """Return the objects that the listing stages of dvc.lock have as outputs now."""
        oids = {
            oid
            for lock in locked(self.project).values()
            if lock.name in _LISTING
            for oid in lock.outs.values()
        }
        return oids.union(*(lists.get(oid, ()) for oid in oids))


def stores(project: Project) -> list[DvcObjects]:
    """Return the cache and every remote of the project's DVC configuration; none without DVC."""
    if not (project.root / ".dvc").is_dir():
        return []
    with repository(project.root) as repo:
        remotes = sorted(repo.config["remote"])
    cache = DvcObjects(project)
    return [cache, *(DvcObjects(project, name, cache.searched) for name in remotes)]


def _all(odb: Any) -> list[str]:
    try:
        return sorted(odb.all())
    except FileNotFoundError:
        return []


def _kinds(odb: Any, path: str, needles: Needles) -> frozenset[str]:
    if odb.fs.protocol == "local":
        return kinds_in_file(Path(path), needles)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "object"
        odb.fs.get_file(path, str(copy))
        return kinds_in_file(copy, needles)


def _lists(odb: Any, oids: Any) -> dict[str, set[str]]:
    """Return the members of each folder's list."""
    found: dict[str, set[str]] = {}
    for oid in oids:
        if oid.endswith(_DIR):
            try:
                entries = json.loads(odb.fs.cat_file(odb.oid_to_path(oid)))
                found[oid] = {entry["md5"] for entry in entries}
            except (FileNotFoundError, ValueError, KeyError, TypeError):
                continue
    return found


def _naming(lists: Mapping[str, set[str]], deleted: set[str]) -> set[str]:
    return {oid for oid, members in lists.items() if members & deleted}


def _forget_runs(folder: str, fs: Any, deleted: set[str]) -> int:
    """Delete the run cache's entries that name a deleted object; return how many."""
    removed = 0
    names = [oid.encode() for oid in deleted]
    for path in fs.find(folder) if names and fs.exists(folder) else ():
        content = fs.cat_file(path)
        if any(name in content for name in names):
            fs.remove(path)
            removed += 1
    return removed


def _begins_with(path: Path, magic: bytes) -> bool:
    try:
        with path.open("rb") as handle:
            return handle.read(len(magic)) == magic
    except OSError:
        return False
