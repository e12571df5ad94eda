"""The input folders beside what the last run listed of them.

The archives are never hashed; path, size and modification time of each file stand for it. The
key that hides identifiers counts as input too: with another key, ingest has to run again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lapvqa import storage
from lapvqa.errors import SourceError
from lapvqa.inventory import NAMES, list_folder
from lapvqa.project import DEMO_MARK, Project
from lapvqa.uptodate import hashes

if TYPE_CHECKING:
    import pyarrow as pa

Row = tuple[str, int, int]
"""Path within the folder, size in bytes, modification time in ns."""

_DEMO = "demo"
"""Stands for the demo's published key."""


@dataclass(frozen=True)
class Places:
    """Where this machine has the input, absolute."""

    folders: dict[str, str]
    key_file: str
    key_is_named: bool
    """local.yaml names the key file; it then counts for the demo archive too."""
    reports: str | None = None
    """Digest of where local.yaml says that the reports of the source are."""


@dataclass(frozen=True)
class Listing:
    """What an inventory holds, in short: it need not be read while the file is the same."""

    mtime_ns: int
    """Modification time of the inventory file itself."""
    digest: str
    key_id: str | None
    reports: str | None = None
    """``Places.reports`` at that time."""


def artefact(project: Project, name: str) -> str:
    """Return the path of an inventory relative to the project, as dvc.yaml names it."""
    return project.inventory(name).relative_to(project.root).as_posix()


def places(project: Project) -> Places:
    """Return where the input is, from params.yaml and local.yaml."""
    from lapvqa.machine import load_machine
    from lapvqa.params import load_params

    params, machine = load_params(project.params), load_machine(project)
    named = machine.deid_key_file
    key_file = project.root / Path(named).expanduser() if named else project.state / "deid.key"
    folders = {name: str(machine.folder(name, params.inventory, project)) for name in NAMES}
    return Places(
        folders, str(key_file), key_is_named=named is not None, reports=machine.reports.digest()
    )


def listings(project: Project) -> dict[str, Listing]:
    """Return what each inventory lists; not a new scan, which would hide what came later."""
    return {name: _listing(project, name) for name in NAMES if project.inventory(name).exists()}


def change(project: Project, name: str, *, places: Places, known: Listing | None) -> str:
    """Say what changed in a folder since it was listed ("10 files new"); empty if nothing.

    Without an inventory file there is nothing to compare with: empty, its stage runs anyway.
    """
    path, folders = project.inventory(name), {k: Path(v) for k, v in places.folders.items()}
    folder = folders[name]
    if not path.exists():
        return ""
    if name == "source" and not folder.is_dir():
        return f"{folder} is not there"
    try:
        rows = list_folder(name, folders)  # empty if absent: evaluation sets are optional
    except SourceError as error:
        return error.message
    if known is None or known.mtime_ns != path.stat().st_mtime_ns:
        known = _listing(project, name)
    if digest(rows) != known.digest:
        return count_changes(_rows(_read(project, name)), rows)
    if known.key_id not in (None, _key_id(places, rows)):
        return "the key that hides identifiers is another"
    if known.reports not in (None, places.reports):
        return "local.yaml says otherwise where the reports are"
    return ""


def digest(rows: Iterable[Row]) -> str:
    """Return a hash of the rows, whatever their order."""
    lines = (f"{path}\0{size}\0{mtime_ns}\n" for path, size, mtime_ns in sorted(rows))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def count_changes(before: list[Row], now: list[Row]) -> str:
    """Return "10 files new, 1 changed, 2 gone" from two listings; empty if they are the same."""
    old, new = ({path: facts for path, *facts in rows} for rows in (before, now))
    counts = {
        "new": len(new.keys() - old.keys()),
        "changed": sum(new[path] != old[path] for path in new.keys() & old.keys()),
        "gone": len(old.keys() - new.keys()),
    }
    parts = [f"{number} {what}" for what, number in counts.items() if number]
    if parts:
        number, what = parts[0].split()
        parts[0] = f"{number} file{'' if number == '1' else 's'} {what}"
    return ", ".join(parts)


def summary(project: Project, path: str, md5: str) -> dict[str, int]:
    """Return files and bytes that an inventory lists; empty for any other file.

    Empty too where the inventory on disk is no longer the one with this md5.
    """
    names = [name for name in NAMES if artefact(project, name) == path]
    if not names or not project.inventory(names[0]).exists():
        return {}
    if hashes.md5_file(project.inventory(names[0])) != md5:
        return {}
    import pyarrow.compute as pc

    table = _read(project, names[0])
    return {"files": table.num_rows, "bytes": pc.sum(table["size"]).as_py() or 0}


def _listing(project: Project, name: str) -> Listing:
    from lapvqa.identity import DEMO_KEY, key_id

    mtime_ns = project.inventory(name).stat().st_mtime_ns
    table = _read(project, name)
    marked = (table.schema.metadata or {}).get(b"deid_key")
    used = marked.decode() if marked else None
    key = _DEMO if used == key_id(DEMO_KEY) else used
    stated = (table.schema.metadata or {}).get(b"reports")
    return Listing(mtime_ns, digest(_rows(table)), key, stated.decode() if stated else None)


def _key_id(places: Places, rows: list[Row]) -> str:
    if not places.key_is_named and any(path == DEMO_MARK for path, _, _ in rows):
        return _DEMO
    try:
        key = Path(places.key_file).read_bytes().strip()
    except OSError:
        return "none"
    return hashlib.sha256(key).hexdigest()[:8]  # as lapvqa.identity names a key


def _read(project: Project, name: str) -> pa.Table:
    """Read an inventory (imports pyarrow)."""
    from lapvqa.schemas import INVENTORY

    return storage.read_table(project.inventory(name), INVENTORY, made_by="inventory")


def _rows(table: pa.Table) -> list[Row]:
    columns = [table.column(key).to_pylist() for key in ("path", "size", "mtime_ns")]
    return list(zip(*columns, strict=True))
