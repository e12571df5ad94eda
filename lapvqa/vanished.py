"""Files of an input folder that were there at the last inventory and are gone: stop and ask.

A disk that is not mounted and a copy that was not finished look like deletions. Of each folder the
last inventory is remembered as digests of names, sizes and times (never the names). A file that has
moved within its folder is not gone.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lapvqa import storage
from lapvqa.errors import FilesGoneError
from lapvqa.project import Project

Listed = tuple[Path, pa.Table]
"""An input folder, and its files (``INVENTORY``)."""

FEW = 5
"""So many files may be gone of any folder, unless they were all that it had."""
_DIGEST = 8  # bytes
_ODD = np.uint64(0x9E3779B97F4A7C15)
"""Spreads sizes over 64 bits."""


def require_present(project: Project, listed: Mapping[str, Listed], share: float) -> None:
    """Raise FilesGoneError if more than ``share`` of a folder's files is gone; else remember them.

    ``listed``: by the input folder's name. A folder that is another one now (local.yaml,
    params.yaml) is not compared. ``accept`` lets one call pass.
    """
    accepted = project.accepted_loss.exists()
    found = {}
    faults = []
    for name, (folder, table) in listed.items():
        before, whole = _remembered(project, name), _whole(folder, table)
        if before is not None and np.array_equal(before[0], whole):
            continue
        now = found[name] = _digests(whole, table)
        if not accepted and before is not None and before[0, 0] == now[0, 0]:
            faults += _fault(name, before[1:], now[1:], share)
    if faults:
        raise FilesGoneError(
            f"expected the files of the last run, found {'; '.join(faults)}",
            hint="is a disk not mounted, a copy not finished? If they are gone for good: "
            "lapvqa run --accept-loss (what was made of them goes too); "
            "the share that may be gone is safeguards.files_gone in params.yaml",
        )
    for name, now in found.items():
        storage.write_bytes(_path(project, name), now.tobytes())
    project.accepted_loss.unlink(missing_ok=True)


def accept(project: Project) -> None:
    """Let the next inventory pass whatever is gone."""
    storage.write_json(project.accepted_loss, {"accepted": "files that are gone, once"})


def _fault(
    name: str, before: NDArray[np.uint64], now: NDArray[np.uint64], share: float
) -> list[str]:
    """Return how many files are gone in words, nothing if few enough."""
    missing = before[~np.isin(before[:, 0], now[:, 0]), 1]
    arrived = now[~np.isin(now[:, 0], before[:, 0]), 1]
    moved = (Counter(missing.tolist()) & Counter(arrived.tolist())).total()
    gone, of = len(missing) - moved, len(before)
    is_much = gone > max(share * of, FEW) or gone == of
    return [f"{gone} of {of} of {name} gone"] if gone and is_much else []


def _whole(folder: Path, table: pa.Table) -> NDArray[np.uint64]:
    """Return the digests of the folder's path and of all that is listed of it."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return np.array([_digest(str(folder).encode("utf-8", "surrogateescape")),
                     _digest(sink.getvalue())], np.uint64)  # fmt: skip


def _digests(whole: NDArray[np.uint64], table: pa.Table) -> NDArray[np.uint64]:
    """Return [1 + files, 2]: ``whole``; of each file a digest of its name, and size with time."""
    names = np.array([_digest(name.encode()) for name in table["path"].to_pylist()], np.uint64)
    size, time = (table[name].to_numpy().astype(np.uint64) for name in ("size", "mtime_ns"))
    return np.vstack([whole, np.stack([names, size * _ODD + time], axis=1)])


def _digest(data: bytes | pa.Buffer) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=_DIGEST).digest(), "little")


def _remembered(project: Project, name: str) -> NDArray[np.uint64] | None:
    path = _path(project, name)
    if not path.exists():
        return None
    content = path.read_bytes()
    return np.frombuffer(content[: len(content) // 16 * 16], dtype=np.uint64).reshape(-1, 2)


def _path(project: Project, name: str) -> Path:
    return project.work_dir("inventory") / f"{name}.seen"
