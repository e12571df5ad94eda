"""What DVC writes in place outlives a kill: dying in that moment leaves a file cut off.

dvc.lock: a copy is kept beside the project's state whenever the file is known to be whole.
What a restored copy does not tell of, DVC's run cache does: the stage is restored, not computed
again. .dvc/tmp/rwlock, which lists who reads and writes what: removed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

from lapvqa import storage
from lapvqa.project import Project
from lapvqa.uptodate.stagefile import CutLockError, locked
from tasks.dvc_graph import repository


def keep(project: Project) -> None:
    """Copy dvc.lock; to be called when no DVC command writes it."""
    if project.dvc_lock.exists():
        storage.write_bytes(project.kept_dvc_lock, project.dvc_lock.read_bytes())


def mend(project: Project, say: Callable[[str], None]) -> None:
    """Mend what a kill has cut off; ``say`` gets a line for each file."""
    _mend_dvc_lock(project, say)
    _mend_rwlock(project, say)


def _mend_dvc_lock(project: Project, say: Callable[[str], None]) -> None:
    """Put the kept copy in place of a dvc.lock that is cut off; without one, remove it.

    Raises BusyError while another DVC command is at work.
    """
    if _is_as_kept(project) or is_whole(project):
        return
    with repository(project.root) as repo, repo.lock:
        if is_whole(project):  # another command was writing it
            return
        if project.kept_dvc_lock.exists():
            storage.write_bytes(project.dvc_lock, project.kept_dvc_lock.read_bytes())
        else:
            project.dvc_lock.unlink()
    say("dvc.lock was cut off when a run was killed; the copy kept before is in its place")


def _is_as_kept(project: Project) -> bool:
    """Return whether dvc.lock is as the last stage left it, which spares parsing it."""
    kept, lock = project.kept_dvc_lock, project.dvc_lock
    return kept.exists() and lock.exists() and kept.read_bytes() == lock.read_bytes()


def is_whole(project: Project) -> bool:
    """Return whether dvc.lock is absent or what DVC and the lineage can read."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError
    from voluptuous import MultipleInvalid

    if not project.dvc_lock.exists():
        return True
    try:
        text = project.dvc_lock.read_text(encoding="utf-8")
        COMPILED_LOCKFILE_SCHEMA(YAML(typ="safe", pure=True).load(text))
        locked(project)
    except (YAMLError, UnicodeDecodeError, MultipleInvalid, CutLockError):
        return False
    return True


def _mend_rwlock(project: Project, say: Callable[[str], None]) -> None:
    """Remove a rwlock that is no JSON: under its guard, its writer must be dead.

    The guard is held for moments only; whoever holds it now is alive and leaves a whole file.
    """
    from dvc.lock import LockError, make_lock

    folder = project.root / ".dvc" / "tmp"
    path = folder / "rwlock"
    if not path.exists() or _is_json(path):
        return
    with (
        contextlib.suppress(LockError),
        make_lock(str(folder / "rwlock.lock"), tmp_dir=str(folder)),
    ):
        if path.exists() and not _is_json(path):
            path.unlink()
            say(".dvc/tmp/rwlock was cut off when a run was killed; removed")


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True
