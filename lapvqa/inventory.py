"""Stage ``inventory``: list path, size and modification time of the input folders, nothing else.

The archives are too large to hash (4.7 TB); the later stages depend on these lists, and read each
file's bytes once. ``list_folder`` alone answers "did anything change?" and imports nothing heavy.
Names that begin with a dot are left out: they belong to tools, not to an archive.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lapvqa.errors import SourceError

if TYPE_CHECKING:
    from lapvqa.job import Counts, Job
    from lapvqa.params import InventoryParams

NAMES = ("source", "chexpert", "nih14", "ext_vqa", "diff_vqa", "vindr", "ms_cxr")
BESIDE = ("mimic-cxr-reports.zip", "NLMCXR_reports.tgz")
"""Packed reports that publishers put next to the folder of images; listed as ``../name``."""
Entry = tuple[str, int, int]


def run(params: InventoryParams, job: Job) -> Counts:
    """Write data/inventory/<name>.parquet for each input folder; return the numbers of files.

    The source's file also holds the archive's layout, the id of the key that will hide its
    identifiers, and a digest of where local.yaml says its reports are, so a change of one reruns
    ingest. An absent evaluation set gives an empty list.
    """
    counts: Counts = {}
    for name in NAMES:
        folder = job.folders[name]
        if name == "source":
            _require_source(folder)
        entries = list_folder(name, folder)
        facts = {}
        if name == "source":
            facts = _source_facts(folder, entries, job)
        _write(job.project.inventory(name), entries, facts)
        counts[name] = len(entries)
        result = f"{len(entries)} files" if folder.is_dir() else "no such folder, listed as empty"
        job.recorder.say(f"{name}: {result}")
    return counts


def list_folder(name: str, folder: Path) -> list[Entry]:
    """Return the files of one of ``NAMES``, empty if there is no such folder; see ``scan``.

    The source's packed reports that lie next to it are its files too: ingest reads them.
    """
    if not folder.is_dir():
        return []
    return sorted([*_beside(folder), *scan(folder)]) if name == "source" else scan(folder)


def scan(folder: Path) -> list[Entry]:
    """Return (path relative to ``folder`` with /, bytes, mtime in ns) of all files, sorted.

    Links to files and folders are followed (each linked folder once); a broken link is listed
    with size 0, so that whoever reads it says so. Raises SourceError if a folder is unreadable.
    """
    with _as_source_error():
        linked = {_identity(folder.stat())}
    entries: list[Entry] = []
    pending = [(str(folder), "")]
    while pending:
        directory, prefix = pending.pop()
        for entry in _children(directory):
            path = prefix + _text(entry.name)
            if entry.is_dir():
                if not entry.is_symlink() or _first_visit(entry, linked):
                    pending.append((entry.path, path + "/"))
            elif entry.is_file():
                status = entry.stat()
                entries.append((path, status.st_size, status.st_mtime_ns))
            elif entry.is_symlink():
                entries.append((path, 0, 0))
    return sorted(entries)


def _beside(folder: Path) -> Iterator[Entry]:
    for name in BESIDE:
        path = f"../{name}"
        if (folder / path).is_file():
            status = (folder / path).stat()
            yield path, status.st_size, status.st_mtime_ns


def _children(directory: str) -> list[os.DirEntry[str]]:
    with _as_source_error(), os.scandir(directory) as children:
        visible = [entry for entry in children if not entry.name.startswith(".")]
    return sorted(visible, key=lambda entry: entry.name)


@contextmanager
def _as_source_error() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(
            f"a folder of the archive cannot be read ({error.strerror})",
            hint="find it with `find ARCHIVE -type d ! -readable` and grant access",
        ) from None


def _first_visit(entry: os.DirEntry[str], linked: set[tuple[int, int]]) -> bool:
    identity = _identity(entry.stat())
    new = identity not in linked
    linked.add(identity)
    return new


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _text(name: str) -> str:
    # A name that is not UTF-8 cannot stand in a table; its escaped form is rejected at reading.
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _require_source(folder: Path) -> None:
    if not folder.is_dir():
        present = "a file" if folder.exists() else "nothing"
        raise SourceError(
            f"expected an archive of DICOM files and reports at {folder}, found {present}",
            hint="make the demo archive with `lapvqa demo`, or name yours with `--source DIR`",
        )


def _source_facts(folder: Path, entries: list[Entry], job: Job) -> dict[str, str]:
    from lapvqa import identity
    from lapvqa.ingest.archives.recognise import recognise

    archive_layout = recognise(folder, [path for path, _, _ in entries])
    key = identity.load_key(folder, job)
    reports = job.machine.reports.digest()
    return {"layout": archive_layout, "deid_key": identity.key_id(key), "reports": reports}


def _write(path: Path, entries: list[Entry], facts: dict[str, str]) -> None:
    import pyarrow as pa

    from lapvqa import storage
    from lapvqa.schemas import INVENTORY

    columns = list(zip(*entries, strict=True)) if entries else [(), (), ()]
    arrays = [
        pa.array(column, field.type) for column, field in zip(columns, INVENTORY, strict=True)
    ]
    table = pa.table(arrays, schema=INVENTORY.with_metadata(facts))
    storage.write_table(path, table, INVENTORY)
