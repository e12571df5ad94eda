"""The inbox: what has arrived and is not yet a complete study. It lies in the archive's folder.

    <archive>/.inbox/<command>/lock                                  one receiver, puller, watcher
                               studies/<source>/<study>/<instance>.dcm
                               filing.json                           a study on its way out
                     filing.lock                                     one files at a time

The folder's name begins with a dot, so no run reads it; and it is on the archive's file system, so
that a study leaves it by a rename. Study and instance are keyed hashes: no UID is ever a name.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lapvqa import storage
from lapvqa.errors import ConfigError, SourceError, StorageFullError
from lapvqa.identity import Keyring, load_key
from lapvqa.ingest.archives.recognise import recognise
from lapvqa.ingest.archives.tree import TreeArchive
from lapvqa.intake.instance import Names
from lapvqa.inventory import list_folder
from lapvqa.job import Job
from lapvqa.machine import Intake

FOLDER = ".inbox"
_STRIPES = 64


@dataclass(frozen=True)
class Waiting:
    """A study in the inbox."""

    source: str
    study: str
    folder: Path
    files: tuple[Path, ...]
    quiet: float
    """Seconds since the last of its files came."""


class Inbox:
    """One command's part of the inbox, which it holds alone."""

    def __init__(self, archive: Path, command: str, keyring: Keyring, settings: Intake) -> None:
        self.archive, self.keyring, self.settings = archive, keyring, settings
        self.root = archive / FOLDER
        self.folder = self.root / command
        self.studies = self.folder / "studies"
        self.journal = self.folder / "filing.json"
        self._locks = [threading.Lock() for _ in range(_STRIPES)]

    def study_key(self, names: Names) -> str:
        """Return the keyed hash of the study."""
        return self.keyring.study(names.study_uid)

    def deposit(self, source: str, names: Names, data: bytes) -> str:
        """Keep a file, flushed to disk; return its study's key. Raises StorageFullError.

        The same instance again replaces what is here; the two are compared when they are filed.
        """
        study = self.study_key(names)
        self._require_space(len(data))
        with self.holding(study):
            path = self.place(source, names)
            is_new = not path.parent.exists()
            storage.write_bytes(path, data)
            # A folder that is new is on disk when those above it are.
            for folder in (path.parent.parent, self.studies) if is_new else ():
                storage.flush_folder(folder)
        return study

    def place(self, source: str, names: Names) -> Path:
        """Return where an instance lies in the inbox."""
        return self.studies / source / self.study_key(names) / self.file_name(names)

    def file_name(self, names: Names) -> str:
        """Return what an instance is called, in the inbox and in the archive."""
        return f"{self.keyring.image(names.instance_uid)}.dcm"

    def home(self, source: str, study: str) -> Path:
        """Return a study's folder in the archive, there or not: one, whoever sends it."""
        own = self.archive / source / study
        if own.exists():
            return own
        return next((found for found in self.archive.glob(f"*/{study}")), own)

    def filed(self, source: str, names: Names) -> Path:
        """Return where an instance lies in the archive, there or not."""
        return self.home(source, self.study_key(names)) / self.file_name(names)

    def waiting(self) -> Iterator[Waiting]:
        """Yield the studies in the inbox."""
        for folder in sorted(self.studies.glob("*/*")):
            with self.holding(folder.name):
                files = tuple(sorted(folder.glob("*.dcm")))
                newest = max((path.stat().st_mtime for path in files), default=0.0)
            if files:
                # Whichever way: a clock that was set back must not keep a study for ever.
                quiet = abs(time.time() - newest)
                yield Waiting(folder.parent.name, folder.name, folder, files, quiet)

    @contextmanager
    def holding(self, study: str) -> Iterator[None]:
        """Keep the other threads from a study's folder."""
        with self._locks[hash(study) % _STRIPES]:
            yield

    def _require_space(self, size: int) -> None:
        keep = int(self.settings.min_free_gb * 1e9)
        free = shutil.disk_usage(self.root).free
        if free < size:
            raise StorageFullError(
                "the disk is full where the archive lies: a file that has come has no room",
                hint="free disk space",
            )
        if free - size < keep:
            raise StorageFullError(
                f"less than {self.settings.min_free_gb:g} GB are free where the archive lies",
                hint="free disk space, or lower intake.min_free_gb in local.yaml",
            )


@contextmanager
def open_inbox(job: Job, command: str) -> Iterator[Inbox]:
    """Open the inbox of a project's archive for one command, alone.

    What a killed one had begun to write is gone: it was not acknowledged. Raises BusyError,
    SourceError if the archive is absent or of a layout that takes no studies, ConfigError.
    """
    archive = job.folders["source"]
    _require_tree(job)
    inbox = Inbox(archive, command, Keyring(load_key(archive, job)), job.machine.intake)
    inbox.studies.mkdir(parents=True, exist_ok=True)
    if inbox.root.stat().st_dev != archive.stat().st_dev:
        raise ConfigError(
            f"expected {FOLDER} on the file system of the archive, found it on another",
            hint="a study leaves the inbox by a rename; make it a plain folder in the archive's",
        )
    with storage.lock(inbox.folder / "lock", what=f"`lapvqa {command}` on this archive"):
        for part in inbox.studies.rglob(".*.tmp"):
            part.unlink()
        yield inbox


def _require_tree(job: Job) -> None:
    archive = job.folders["source"]
    if not archive.is_dir():
        raise SourceError(
            f"expected the archive's folder at {archive}, found none",
            hint="make it, and name it: `paths: {source: ...}` in local.yaml",
        )
    if job.project.root.resolve().is_relative_to(archive.resolve()):
        raise ConfigError(
            f"expected an archive apart from the project's folder, found that in it: {archive}",
            hint="name a folder of its own: `paths: {source: ...}` in local.yaml",
        )
    entries = list_folder("source", job.folders)
    try:
        layout = recognise(archive, [path for path, _, _ in entries])
    except SourceError:  # nothing in it yet
        return
    if layout != TreeArchive.name:
        raise ConfigError(
            f"expected an archive of hospital studies, found one of layout {layout}",
            hint="studies that arrive need an archive of their own: "
            "`paths: {source: FOLDER}` in local.yaml; docs/fresh-walk.md walks through it",
        )
