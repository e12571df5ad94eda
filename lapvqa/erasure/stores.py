"""The stores that are searched: what each holds of a patient, and how it is removed there.

A store of the library is a part of the project's folder, or a folder that was named; those of DVC
and MLflow are in ``tasks/erasing``. ``search`` changes nothing; ``remove`` may be repeated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from lapvqa import storage
from lapvqa.erasure import databases
from lapvqa.erasure.search import Needles, kinds_in_file
from lapvqa.erasure.traces import KEY, NAMED_BY_ARCHIVE, Traces
from lapvqa.lineage import ledger
from lapvqa.lineage.row_numbers import PATIENT, STUDY, RowNumbers
from lapvqa.project import Project

_NOT_OURS = {".git", ".dvc", ".venv"}
_OUTPUTS = (
    "data", "models", "results", "reports", "evaluations", "exports", "bundles", "imports",
)  # fmt: skip
_LINES = {".jsonl", ".log", ".txt", ".csv"}
"""Of these the lines that hold a trace are dropped, of any other file the whole."""


NAMES_ONE = "names a found object"
"""Kind of a list that holds no trace itself, but the hash of what does."""


@dataclass(frozen=True)
class Finding:
    """A file or an object that holds traces."""

    item: str
    """Path relative to the project, or the hash of an object."""
    kinds: tuple[str, ...]
    size: int
    listing: bool = False
    """It only names files that the archive holds, and has to, as long as they lie there."""


@dataclass(frozen=True)
class Searched:
    """What one search of a store came to."""

    store: str
    files: int
    size: int
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, object]:
        """Return plain values."""
        return asdict(self)


class Store(Protocol):
    """A place that may hold something of a patient."""

    method: str
    """How it is removed there, in words, for the receipt."""

    @property
    def name(self) -> str:
        """The name in receipts."""

    def search(self, traces: Traces) -> Searched:
        """Search all of it."""

    def remove(self, findings: Sequence[Finding], traces: Traces, *, keep_listings: bool) -> int:
        """Remove what was found; return how many items were changed. May be called again.

        ``keep_listings``: leave what only names files that the archive holds.
        """


class ProjectFiles:
    """A part of the project's folder: files are unlinked, lines of logs dropped."""

    method = "unlinked; of logs and lists of lines the lines with traces dropped"

    def __init__(
        self, name: str, root: Path, files: Callable[[], Iterable[Path]], *, ours: bool = True
    ) -> None:
        self.name, self._root, self._files, self._ours = name, root, files, ours
        if not ours:
            self.method = "named only: not LAPVQA's files, so their owner removes them"

    def search(self, traces: Traces) -> Searched:
        """Search every file."""
        return search_files(self.name, self._root, self._files(), traces.needles())

    def remove(self, findings: Sequence[Finding], traces: Traces, *, keep_listings: bool) -> int:
        """Unlink the files, or drop their lines; what only lists the archive's files stays.

        Each is searched once more: a stage may have made it anew without the patient.
        """
        removed, needles = 0, traces.needles()
        for finding in findings if self._ours else ():
            path = self._root / finding.item
            kinds = kinds_in_file(path, needles)
            is_listing = only_names_files(kinds) and _is_listing(finding.item)
            if kinds and not (keep_listings and is_listing):
                _remove_file(path, traces)
                removed += 1
        return removed


class Databases:
    """The SQLite files under .lapvqa/: values overwritten, the files written anew."""

    name = "databases (MLflow, Prefect, index)"
    method = "values overwritten in their rows; secure_delete, wal_checkpoint(TRUNCATE), VACUUM"

    def __init__(self, project: Project) -> None:
        self._project = project

    def search(self, traces: Traces) -> Searched:
        """Search databases and their logs, as bytes and row by row."""
        return search_files(self.name, self._project.root, self._files(), traces.needles())

    def remove(self, findings: Sequence[Finding], traces: Traces, *, keep_listings: bool) -> int:
        """Overwrite and vacuum every database, found or not: free pages hold what was deleted."""
        del findings, keep_listings
        texts = [text for _, text in traces.texts()]
        found = [path for path in self._files() if databases.is_database(path)]
        return sum(bool(databases.overwrite(path, texts)) for path in found)

    def _files(self) -> list[Path]:
        return [path for path in walk(self._project.state) if is_of_database(path)]


class Ledger:
    """The ledger: keys overwritten, payloads erased; the chain of digests still verifies."""

    name = "ledger"
    method = "keys overwritten by dashes; payloads of entries with traces erased, digests stay"

    def __init__(self, project: Project, request: str) -> None:
        self._project, self._request = project, request

    def search(self, traces: Traces) -> Searched:
        """Search the chain, the payloads and the lists of keys."""
        folder = self._project.ledger.parent
        return search_files(self.name, self._project.root, walk(folder), traces.needles())

    def remove(self, findings: Sequence[Finding], traces: Traces, *, keep_listings: bool) -> int:
        """Overwrite the keys and erase payloads that hold a trace."""
        del keep_listings
        if not findings:
            return 0
        keys = traces.found.get(KEY, set())
        numbers = [RowNumbers(self._project, kind) for kind in (PATIENT, STUDY)]
        removed = sum(of.erase(key) is not None for of in numbers for key in keys)
        needles = [needle for _, needle in traces.needles()]
        ids = [
            entry.id
            for entry in ledger.entries(self._project)
            if entry.payload and any(one in _as_bytes(entry.payload) for one in needles)
        ]
        if ids:
            ledger.erase_payloads(self._project, ids, {"request": self._request})
        return removed + len(ids)


def _as_bytes(payload: object) -> bytes:
    return json.dumps(payload, ensure_ascii=False).encode()


def search_files(name: str, root: Path, files: Iterable[Path], needles: Needles) -> Searched:
    """Search files; those that vanish meanwhile hold nothing."""
    number = size = 0
    findings = []
    for path in files:
        kinds = kinds_in_file(path, needles)
        try:
            own = path.stat().st_size
        except FileNotFoundError:
            continue
        number, size = number + 1, size + own
        if kinds:
            item = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
            listing = only_names_files(kinds) and _is_listing(item)
            findings.append(Finding(item, tuple(sorted(kinds)), own, listing))
    return Searched(name, number, size, tuple(findings))


def project_stores(
    project: Project, inputs: Iterable[Path], also: Iterable[Path], request: str
) -> list[Store]:
    """Return the stores of the project's folder, and of the folders ``also``.

    ``inputs`` are archives: never opened here, never changed.
    """
    left_out = {path.resolve() for path in inputs}
    state, root = project.state, project.root

    def outputs() -> Iterator[Path]:
        for name in _OUTPUTS:
            yield from walk(root / name, left_out)

    def work() -> Iterator[Path]:
        yield from walk(project.work_dir("ingest").parent)

    def records() -> Iterator[Path]:
        skip = {project.work_dir("ingest").parent, project.mlflow_artifacts, project.open_erasures}
        yield from (path for path in walk(state, skip) if not is_of_database(path))

    def others() -> Iterator[Path]:
        ours = {root / name for name in (*_OUTPUTS, *_NOT_OURS)}
        skip = ours | {state, project.ledger.parent} | left_out
        yield from walk(root, skip)

    stores: list[Store] = [
        ProjectFiles("outputs, bundles", root, outputs),
        ProjectFiles("work, feature caches", root, work),
        ProjectFiles("logs, records, spool, results of Prefect", root, records),
        ProjectFiles("MLflow artefacts", root, lambda: walk(project.mlflow_artifacts)),
        Databases(project),
        Ledger(project, request),
        ProjectFiles("other files of the project", root, others, ours=False),
    ]
    for folder in also:
        place = folder.resolve()
        stores.append(ProjectFiles(f"named folder {place.name}", root, lambda p=place: walk(p)))  # type: ignore[misc]
    return stores


def walk(folder: Path, skip: Iterable[Path] = ()) -> Iterator[Path]:
    """Yield the files under a folder, in order; links are not followed."""
    left_out = set(skip)
    if folder in left_out or folder.resolve() in left_out:
        return
    if folder.is_file():
        yield folder
    elif folder.is_dir() and not folder.is_symlink():
        for path in sorted(folder.iterdir()):
            yield from walk(path, left_out)


def is_of_database(path: Path) -> bool:
    """Tell whether a file is a database or one of the files beside it."""
    bare = path.name
    for suffix in databases.SUFFIXES:
        bare = bare.removesuffix(suffix)
    return databases.is_database(path.with_name(bare))


def only_names_files(kinds: Iterable[str]) -> bool:
    """Tell whether kinds of traces say no more than which files the archive holds."""
    return (NAMED_BY_ARCHIVE | {NAMES_ONE}).issuperset(kinds)


def _is_listing(item: str) -> bool:
    """Tell whether a file has to list the archive's files as long as they are there.

    Of the finished work that holds for ingest's rows, not for reports: those have texts beside.
    """
    of_ingest = item.startswith(".lapvqa/work/ingest/") and "/reports-" not in item
    return of_ingest or item.startswith(("data/inventory/", "data/rejects", "data/companions"))


def _remove_file(path: Path, traces: Traces) -> None:
    if path.suffix in _LINES:
        needles = [needle for _, needle in traces.needles()]
        lines = path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if not any(needle in line for needle in needles)]
        if len(kept) < len(lines):
            storage.write_bytes(path, b"".join(kept))
            return
    if "features" in path.parts:  # before its listing, which says whose it is: a kill may come
        path.with_suffix(".npy").unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def remove_unlisted(project: Project) -> None:
    """Remove chunks of features that a run left without a listing when it was killed.

    Nothing says whose they are, and no run reads them.
    """
    for path in project.work_dir("features").rglob("*"):
        listings = (path.with_suffix(suffix) for suffix in (".json", ".npz"))
        left = path.suffix == ".npy" and not any(listing.exists() for listing in listings)
        if left or path.suffix == ".tmp":
            path.unlink()
