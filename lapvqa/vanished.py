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
from typing import TYPE_CHECKING

from lapvqa import storage
from lapvqa.errors import FilesGoneError
from lapvqa.project import Project

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Listed = tuple[Path, list[tuple[str, int, int]]]
"""An input folder, and (name, bytes, mtime in ns) of its files."""

FEW = 5
"""So many files may be gone of any folder, unless they were all that it had."""
_DIGEST = 8  # bytes


def require_present(project: Project, listed: Mapping[str, Listed], share: float) -> None:
    """Raise FilesGoneError if more than ``share`` of a folder's files is gone; else remember them.

    ``listed``: by the input folder's name. A folder that is another one now (local.yaml,
    params.yaml) is not compared. ``accept`` lets one call pass.
    """
    digests = {name: _digests(folder, entries) for name, (folder, entries) in listed.items()}
    accepted = project.accepted_loss.exists()
    faults = [] if accepted else list(filter(None, (
        _fault(name, _remembered(project, name), now, share) for name, now in digests.items()
    )))  # fmt: skip
    if faults:
        raise FilesGoneError(
            f"expected the files of the last run, found {'; '.join(faults)}",
            hint="is a disk not mounted, a copy not finished? If they are gone for good: "
            "lapvqa run --accept-loss (what was made of them goes too); "
            "the share that may be gone is safeguards.files_gone in params.yaml",
        )
    for name, now in digests.items():
        storage.write_bytes(_path(project, name), now.tobytes())
    project.accepted_loss.unlink(missing_ok=True)


def accept(project: Project) -> None:
    """Let the next inventory pass whatever is gone."""
    storage.write_json(project.accepted_loss, {"accepted": "files that are gone, once"})


def _fault(
    name: str, before: NDArray[np.uint64] | None, now: NDArray[np.uint64], share: float
) -> str:
    """Return how many files are gone in words, empty if few enough; the first row is the folder."""
    if before is None or before[0, 0] != now[0, 0]:
        return ""
    names = set(now[1:, 0].tolist())
    missing = [(name, state) for name, state in before[1:].tolist() if name not in names]
    known = set(before[1:, 0].tolist())
    arrived = Counter(state for name, state in now[1:].tolist() if name not in known)
    moved = (Counter(state for _, state in missing) & arrived).total()
    gone, of = len(missing) - moved, len(before) - 1
    is_much = gone > max(share * of, FEW) or gone == of
    return f"{gone} of {of} of {name} gone" if gone and is_much else ""


def _digests(folder: Path, entries: list[tuple[str, int, int]]) -> NDArray[np.uint64]:
    """Return [1 + files, 2]: digest of the folder's path and 0; of each name, of size and time."""
    import numpy as np

    rows = [(_digest(str(folder)), 0)]
    rows += [(_digest(name), _digest(f"{size} {time}")) for name, size, time in entries]
    return np.array(rows, dtype=np.uint64)


def _digest(text: str) -> int:
    encoded = text.encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=_DIGEST).digest(), "little")


def _remembered(project: Project, name: str) -> NDArray[np.uint64] | None:
    import numpy as np

    path = _path(project, name)
    if not path.exists():
        return None
    content = path.read_bytes()
    return np.frombuffer(content[: len(content) // 16 * 16], dtype=np.uint64).reshape(-1, 2)


def _path(project: Project, name: str) -> Path:
    return project.work_dir("inventory") / f"{name}.seen"
