"""The input folders beside what the last run listed of them.

The archives are never hashed; path, size and modification time of each file stand for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lapvqa import storage
from lapvqa.errors import SourceError
from lapvqa.layout import Layout

NAMES = ("source", "chexpert", "nih14")
Row = tuple[str, int, int]
"""Path within the folder, size in bytes, modification time in ns."""


@dataclass(frozen=True)
class Listing:
    """What an inventory holds, so that it need not be read while the file is the same."""

    digest: str
    mtime_ns: int
    """Modification time of the inventory file itself."""


def artefact(layout: Layout, name: str) -> str:
    """Return the path of an inventory relative to the project, as dvc.yaml names it."""
    return layout.inventory(name).relative_to(layout.root).as_posix()


def folders(layout: Layout) -> dict[str, str]:
    """Return the absolute input folders by name, from params.yaml and local.yaml."""
    from lapvqa.config import load_machine
    from lapvqa.params import load_params

    params, machine = load_params(layout.params), load_machine(layout)
    return {name: str(machine.folder(name, params.inventory, layout)) for name in NAMES}


def listings(layout: Layout) -> dict[str, Listing]:
    """Return what each inventory lists; not a new scan, which would hide what came later."""
    present = [name for name in NAMES if layout.inventory(name).exists()]
    return {
        name: Listing(digest(listed(layout, name)), layout.inventory(name).stat().st_mtime_ns)
        for name in present
    }


def listed(layout: Layout, name: str) -> list[Row]:
    """Read what the last run listed (imports pyarrow)."""
    from lapvqa.schemas import INVENTORY

    table = storage.read_table(layout.inventory(name), INVENTORY, made_by="inventory")
    columns = [table.column(key).to_pylist() for key in ("path", "size", "mtime_ns")]
    return list(zip(*columns, strict=True))


def digest(rows: Iterable[Row]) -> str:
    """Return a hash of the rows, whatever their order."""
    state = hashlib.sha256()
    for path, size, mtime_ns in sorted(rows):
        state.update(f"{path}\0{size}\0{mtime_ns}\n".encode())
    return state.hexdigest()


def change(layout: Layout, name: str, *, folder: Path, known: Listing | None) -> str:
    """Say what changed in a folder since it was listed ("10 files new"); empty if nothing.

    Without an inventory file there is nothing to compare with: empty, its stage runs anyway.
    """
    from lapvqa.inventory import scan

    path = layout.inventory(name)
    if not path.exists():
        return ""
    try:
        rows = scan(folder)
    except SourceError as error:
        if name == "source":
            return error.message
        rows = []  # the two evaluation sets are optional
    if known and known.mtime_ns == path.stat().st_mtime_ns and known.digest == digest(rows):
        return ""
    return count_changes(listed(layout, name), rows)


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
