"""Stage ``inventory``: list path, size and modification time of the input folders, nothing else.

The archives are too large to hash (4.7 TB); the later stages depend on these lists, and read each
file's bytes once. ``list_folder`` alone answers "did anything change?" and imports nothing heavy.
Nothing ends the listing but a folder that cannot be read: its files would count as deleted, and
their images would be dropped. A file that cannot even be asked for its size is listed all the same,
with size and time 0, and whoever reads it says why. What begins with a dot belongs to tools, not to
an archive: of the source it is listed, a folder as one (``.git/``), and never read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lapvqa.errors import SourceError
from lapvqa.ingest.archives.names import NO_FILE, shown
from lapvqa.project import Project, is_demo, is_unrelated_demo
from lapvqa.recorder import counted

if TYPE_CHECKING:
    import pyarrow as pa

    from lapvqa.job import Counts, Job
    from lapvqa.params import InventoryParams

NAMES = ("source", "chexpert", "nih14", "ext_vqa", "diff_vqa", "vindr", "ms_cxr", "labels")
BESIDE = ("mimic-cxr-reports.zip", "NLMCXR_reports.tgz")
"""Packed reports that publishers put next to the folder of images; listed as ``../name``."""
Entry = tuple[str, int, int]
_NOT_ASKED = (0, 0)
_OF_FILE_SYSTEMS = frozenset({"lost+found", "System Volume Information", "$RECYCLE.BIN"})
"""Folders that belong to a disk or hold what was deleted; often only root may read them."""


def run(params: InventoryParams, job: Job) -> Counts:
    """Write data/inventory/<name>.parquet for each input folder; return the numbers of files.

    The count ``read`` names the folders, as records do. Each list says which folder it lists, and
    whether the demo drew it. The source's file also holds the archive's layout, the id of the key
    that will hide its identifiers, and a digest of where local.yaml says its reports are: a change
    of any reruns ingest. An absent evaluation set gives an empty list; one that was here, like
    much of any folder that is gone, raises FilesGoneError (``lapvqa.vanished``).
    """
    from lapvqa import vanished
    from lapvqa.ingest.archives.found import as_table

    counts: Counts = {}
    absent: list[str] = []
    _require_source(job.folders["source"])
    listed = {name: (job.folders[name], as_table(list_folder(name, job.folders))) for name in NAMES}
    own = {name: what for name, what in listed.items() if not is_unrelated_demo(name, job.folders)}
    vanished.require_present(job.project, own, job.files_gone)
    for name, (folder, table) in listed.items():
        facts = {}
        if len(table):
            facts["folder"] = told(folder, job.project)
        if len(table) and is_demo(name, job.folders):
            facts["synthetic"] = "yes"
        if name == "source":
            facts |= _source_facts(folder, table, job)
        _write(job.project.inventory(name), table, facts)
        counts[name] = len(table)
        if folder.is_dir():
            job.recorder.say(f"{name}: {_result(name, len(table), job.folders)}")
        else:
            absent.append(name)
    if absent:
        job.recorder.say(f"evaluation sets not here, listed as empty: {', '.join(absent)}")
    read = {
        name: told(folder, job.project) for name, (folder, table) in listed.items() if len(table)
    }
    return {**counts, "read": ", ".join(f"{name} {folder}" for name, folder in read.items())}


def list_folder(name: str, folders: Mapping[str, Path], *, named: bool = False) -> list[Entry]:
    """Return the files of one of ``NAMES``, empty if there is no such folder; see ``scan``.

    The source's packed reports that lie next to it are its files too: ingest reads them. So are
    hidden files, which ingest counts. Empty too where ``is_unrelated_demo``. ``named`` is of the
    source.
    """
    folder = folders[name]
    if not folder.is_dir() or is_unrelated_demo(name, folders):
        return []
    if name != "source":
        return scan(folder)
    return sorted([*_beside(folder), *scan(folder, everything=True, named=named)])


def layout_of(folder: Path, listed: pa.Table | list[Entry], project: Project) -> str:
    """Return the layout of the archive whose files are ``listed``; SourceError if none fits.

    What had to be opened for it is remembered, so whoever asks next opens it no more.
    """
    from lapvqa.ingest.archives.found import find_known_files
    from lapvqa.ingest.archives.recognise import recognise

    return recognise(folder, find_known_files(folder, listed, project.work_dir("ingest")))


def told(folder: Path, project: Project) -> str:
    """Return how records call an input folder: its path in the project, else its own name alone.

    The folders above it may be called after a person, and differ from machine to machine.
    """
    root = project.root.resolve()
    inside = folder.is_relative_to(root)
    return folder.relative_to(root).as_posix() if inside else folder.name


def scan(folder: Path, *, everything: bool = False, named: bool = False) -> list[Entry]:
    """Return (path relative to ``folder`` with /, bytes, mtime in ns) of all files, sorted.

    Links to files and folders are followed (each linked folder once). What cannot be followed or
    asked (a broken link, a link to itself, a file that is gone meanwhile) is listed with 0 and 0.
    With ``everything``, so is what begins with a dot, unasked, and pipes, sockets and devices have
    ``NO_FILE`` for a time. Raises SourceError if folders are unreadable; ``named``: it names the
    first, for who typed the path, and is told on that terminal alone.
    """
    listing = _Listing(everything)
    pending = [_Folder(str(folder))]
    faults: list[tuple[_Folder, str]] = []
    while pending:
        current = pending.pop()
        try:
            if not current.prefix:
                listing.linked.add(_identity(folder.stat()))
            with os.scandir(current.path) as found:
                children = list(found)
        except OSError as error:
            is_gone = isinstance(error, FileNotFoundError | NotADirectoryError)
            if not (current.prefix and is_gone):  # else gone since its parent was read
                faults.append((current, str(error.strerror)))
            continue
        pending += listing.take(current, children)
    if faults:
        raise _unreadable(faults, named)
    listing.entries.sort(key=itemgetter(0))
    return listing.entries


class _Folder(NamedTuple):
    """A folder to read: the ``number``-th of ``of`` in the folder above it."""

    path: str
    prefix: str = ""
    above: _Folder | None = None
    number: int = 0
    of: int = 0

    @property
    def place(self) -> str:
        """Where it is, without a name."""
        if self.above is None:
            return "its own folder"
        start = f"{self.above.place}, then " if self.above.prefix else "folder "
        return f"{start}{self.number} of {self.of}"


class _Listing:
    """The files of the folders that were read so far."""

    def __init__(self, everything: bool) -> None:
        self.everything = everything
        self.entries: list[Entry] = []
        self.linked: set[tuple[int, int]] = set()

    def take(self, folder: _Folder, children: list[os.DirEntry[str]]) -> list[_Folder]:
        """Take a folder's files; return its folders in order of name."""
        prefix, folders = folder.prefix, []
        for child in children:
            name = child.name
            is_folder = _is_folder(child)
            if name[0] == "." or (is_folder and name in _OF_FILE_SYSTEMS):
                if self.everything:
                    path = prefix + shown(name)
                    self.entries.append((path + "/" if is_folder else path, *_NOT_ASKED))
            elif is_folder:
                folders.append(child)
            else:
                self._take_file(child, prefix + shown(name))
        folders.sort(key=attrgetter("name"))  # of two links to one folder the first is followed
        own = [child for child in folders if not child.is_symlink() or self._first_visit(child)]
        return [
            _Folder(child.path, f"{prefix}{shown(child.name)}/", folder, number, len(own))
            for number, child in enumerate(own, start=1)
        ]

    def _take_file(self, child: os.DirEntry[str], path: str) -> None:
        try:
            status = child.stat()
        except OSError:
            self.entries.append((path, *_NOT_ASKED))
            return
        if stat.S_ISREG(status.st_mode):
            self.entries.append((path, status.st_size, status.st_mtime_ns))
        elif self.everything:
            self.entries.append((path, 0, NO_FILE))

    def _first_visit(self, child: os.DirEntry[str]) -> bool:
        try:
            identity = _identity(child.stat())
        except OSError:  # gone in this moment
            return False
        new = identity not in self.linked
        self.linked.add(identity)
        return new


def _is_folder(child: os.DirEntry[str]) -> bool:
    try:
        return child.is_dir()
    except OSError:  # a link to itself, or one into what must not be read
        return False


def _result(name: str, files: int, folders: Mapping[str, Path]) -> str:
    if is_unrelated_demo(name, folders):
        return "the demo's, and the archive is another: listed as empty"
    return counted(files, "file")


def _beside(folder: Path) -> Iterator[Entry]:
    for name in BESIDE:
        path = f"../{name}"
        try:
            status = (folder / path).stat()
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode):
            yield path, status.st_size, status.st_mtime_ns


def _unreadable(faults: list[tuple[_Folder, str]], named: bool) -> SourceError:
    """Return the error; unless ``named``, the first's place stands for its name, a patient's."""
    first, cause = min(faults, key=lambda fault: fault[0].prefix)
    what = "a folder" if len(faults) == 1 else f"{len(faults)} folders"
    if named:
        such = "" if len(faults) == 1 else "such as "
        return SourceError(
            f"{what} cannot be read ({cause}): {such}{shown(first.path)}",
            hint="grant access, or move it elsewhere",
        )
    return SourceError(
        f"{what} of the archive cannot be read ({cause}): {first.place}"
        + (" (in order of name)" if first.prefix else ""),
        hint="`find -L ARCHIVE >/dev/null` names what cannot be read; grant access, or move it out "
        "of the archive (left out silently, its files would count as deleted)",
    )


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _require_source(folder: Path) -> None:
    if not folder.is_dir():
        present = "a file" if folder.exists() else "nothing"
        raise SourceError(
            f"expected an archive of DICOM files and reports at {folder}, found {present}",
            hint="make the demo archive with `lapvqa demo`, or name yours with `--source DIR`",
        )


def _source_facts(folder: Path, listed: pa.Table, job: Job) -> dict[str, str]:
    from lapvqa import identity

    archive_layout = layout_of(folder, listed, job.project)
    key = identity.load_key(folder, job)
    reports = job.machine.reports.digest()
    return {"layout": archive_layout, "deid_key": identity.key_id(key), "reports": reports}


def _write(path: Path, listed: pa.Table, facts: dict[str, str]) -> None:
    from lapvqa import storage
    from lapvqa.schemas import INVENTORY

    table = listed.cast(INVENTORY.with_metadata(facts))
    storage.write_table(path, table, INVENTORY)
