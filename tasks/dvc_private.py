"""Every name of DVC that its documentation does not promise, and nothing else of it.

An upgrade may move any of them: tests/house/test_private_names.py says which. Of ``dvc.repo.Repo``
we use ``index.graph`` and ``status``, which tests/orchestration runs.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

NAMES = {
    "dvc.lock:make_lock": ("lockfile", "tmp_dir", "wait"),
    "dvc.schema:COMPILED_LOCKFILE_SCHEMA": ("data",),
    "dvc.rwlock:RWLOCK_FILE": None,
    "dvc.rwlock:RWLOCK_LOCK": None,
}
"""Where each lies -> the parameters that we pass; None: no call."""

RWLOCK = "rwlock"
_GUARD, _LOCK = "rwlock.lock", "lock"


def temporary_folder(root: Path) -> Path:
    """Return the folder of DVC's locks."""
    return root / ".dvc" / "tmp"


def repository_lock(root: Path) -> AbstractContextManager[Any]:
    """Return the lock that a DVC command holds while it writes dvc.lock; waits for it."""
    from dvc.lock import make_lock

    folder = temporary_folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    lock: AbstractContextManager[Any] = make_lock(
        str(folder / _LOCK), tmp_dir=str(folder), wait=True
    )
    return lock


def rwlock_guard(root: Path) -> AbstractContextManager[Any]:
    """Return the lock that a DVC command holds while it writes the list of readers and writers."""
    from dvc.lock import make_lock

    folder = temporary_folder(root)
    guard: AbstractContextManager[Any] = make_lock(str(folder / _GUARD), tmp_dir=str(folder))
    return guard


def require_lockfile(content: Any) -> None:
    """Raise voluptuous.MultipleInvalid unless ``content`` is that of a dvc.lock."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA

    COMPILED_LOCKFILE_SCHEMA(content)
