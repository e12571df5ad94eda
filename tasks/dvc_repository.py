"""DVC's repository, opened in this process (no child, no lock kept): the graph, and what is stale.

What DVC writes in place is mended here too: a process that dies while it writes leaves a file cut
off. Of dvc.lock a copy is kept beside the project's state whenever the file is known to be whole.
What a restored copy does not tell of, DVC's run cache does: the stage is restored, not computed
again. .dvc/tmp/rwlock, which lists who reads and writes what, is removed; in a whole one the dead
are forgotten, also those whom no parent has waited for: DVC takes a zombie for alive.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from lapvqa import storage
from lapvqa.errors import BusyError, ConfigError
from lapvqa.lineage import dvc_cache
from lapvqa.params import read_yaml
from lapvqa.project import Project
from lapvqa.uptodate import manifest, stagefile
from lapvqa.uptodate.hashes import Hasher
from lapvqa.uptodate.stagefile import CutLockError, LockedStage, locked
from lapvqa.uptodate.staleness import StageState
from tasks import dvc_private

if TYPE_CHECKING:
    from dvc.repo import Repo


_SHOWN = 4


@dataclass(frozen=True)
class StageNode:
    """One stage of the graph; paths relative to the project."""

    name: str
    upstream: tuple[str, ...]
    """The stages whose outputs it reads."""
    deps: tuple[str, ...]
    outs: tuple[str, ...]
    params: dict[str, Any]
    """Dotted key of params.yaml -> value, now."""
    always_changed: bool

    @property
    def looks_around(self) -> bool:
        """Whether it looks for new files each time, and so decides what else is stale."""
        return self.always_changed and not self.upstream


def read_graph(project: Project) -> list[StageNode]:
    """Return the stages in the order in which `dvc repro` runs them, upstream first.

    Without DVC, whose import and reading take a second, where dvc.yaml can be read without it.
    """
    try:
        stages = stagefile.declared(project)
    except stagefile.UnsupportedStagefileError:
        return load_graph(project.root)
    params = read_yaml(project.params)
    return [
        StageNode(
            name=name,
            upstream=tuple(sorted(stagefile.upstream(stages, name))),
            deps=stage.deps,
            outs=stage.outs,
            params={key: stagefile.lookup(params, key) for key in stage.params},
            always_changed=stage.always_changed,
        )
        for name, stage in stages.items()
    ]


def load_graph(root: Path) -> list[StageNode]:
    """Return the stages in the order in which `dvc repro` runs them, upstream first.

    Raises ConfigError where dvc.yaml or params.yaml cannot be read.
    """
    import networkx

    with repository(root) as repo:
        graph = repo.index.graph
        order = networkx.dfs_postorder_nodes(graph)
        return [_node(stage, graph) for stage in order if not stage.is_data_source]


def stale_stages(
    project: Project, states: Sequence[StageState], graph: list[StageNode], *, done: Collection[str]
) -> dict[str, str]:
    """Return the stages that may have to run, in order, each with the reason.

    A stage is stale if it is by itself or anything upstream of it is; whether it then runs, DVC
    decides. ``states``: as ``staleness.check`` sees them; if it cannot tell, DVC is asked, which
    raises BusyError while another `dvc repro` is at work. ``done``: stages that ran a moment ago
    and would be called changed for ever (always_changed).
    """
    if all(state.known for state in states):
        stale = {state.name: _shown(state.reasons) for state in states if state.stale}
        return {node.name: stale[node.name] for node in graph if node.name in stale}
    with repository(project.root) as repo:
        status = {_name(key): facts for key, facts in repo.status().items()}
    stale = {}
    for node in graph:
        if node.name in done:
            continue
        above = [name for name in node.upstream if name in stale]
        if node.name in status:
            stale[node.name] = describe(status[node.name])
        elif above:
            stale[node.name] = f"after {', '.join(above)}"
    return stale


def describe(facts: list[Any]) -> str:
    """Put DVC's status of one stage into words, the first few changes by name."""
    changes_named: list[str] = []
    for fact in facts:
        if isinstance(fact, str):  # "changed command", "always changed"
            changes_named.append(fact)
            continue
        for kind, changes in fact.items():
            prefix = "output " if kind == "changed outs" else ""
            for path, state in changes.items():
                if isinstance(state, dict):
                    changes_named += [f"parameter {key} {how}" for key, how in state.items()]
                else:
                    changes_named.append(f"{prefix}{path} {state}")
    return _shown(changes_named)


def _shown(reasons: Sequence[str]) -> str:
    """Return the first few reasons."""
    more = [f"{len(reasons) - _SHOWN} more"] if len(reasons) > _SHOWN else []
    return ", ".join([*reasons[:_SHOWN], *more])


def _node(stage: Any, graph: Any) -> StageNode:
    from dvc.dependency import ParamsDependency

    params: dict[str, Any] = {}
    for dependency in stage.deps:
        if isinstance(dependency, ParamsDependency):
            params |= dependency.read_params()
    return StageNode(
        name=stage.name,
        upstream=tuple(sorted(other.name for other in graph.successors(stage))),
        deps=tuple(d.def_path for d in stage.deps if not isinstance(d, ParamsDependency)),
        outs=tuple(out.def_path for out in stage.outs),
        params=params,
        always_changed=stage.always_changed,
    )


def _name(key: str) -> str:
    """Return the stage's name from a key of ``Repo.status`` (``dvc.yaml:name`` elsewhere)."""
    return key.rpartition(":")[2]


@contextmanager
def repository(root: Path) -> Iterator[Repo]:
    """Open the DVC repository; BusyError while another command holds it, else ConfigError."""
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.ERROR)
    try:
        with Repo(str(root)) as opened:
            yield opened
    except LockError as error:
        raise BusyError(
            "another DVC command is at work in this project",
            hint="wait for it; `lapvqa status` shows what is running",
        ) from error
    except DvcException as error:
        if "busy" in str(error):
            raise BusyError(
                f"another DVC command is at work in this project: {error}",
                hint="wait for it; `lapvqa status` shows what is running",
            ) from error
        raise ConfigError(
            f"DVC cannot read the stage graph: {error}", hint="correct dvc.yaml or params.yaml"
        ) from error


def keep_dvc_lock(project: Project) -> dict[str, LockedStage]:
    """Copy dvc.lock while no DVC command writes it, and return its stages."""
    with _while_nobody_writes(project):
        if project.dvc_lock.exists() and not _is_as_kept(project):
            storage.write_bytes(project.kept_dvc_lock, project.dvc_lock.read_bytes())
        return manifest.locked(project)


def drop_spoilt(project: Project, lock: LockedStage, say: Callable[[str], None]) -> None:
    """Take out of DVC's cache what is spoilt of a stage's outputs, so that it is not brought back.

    An output that somebody wrote over in place, where it is a hard link, spoils the cache's object.
    Only objects of outputs that differ from dvc.lock are read, and none that is good is touched.
    """
    known = manifest.load(project)
    hasher = Hasher(project, known.artefacts if known else {})
    for path, md5 in lock.outs.items():
        if hasher.md5(path) == md5:
            continue
        for file in dvc_cache.spoilt(project, path, md5, hasher.artefact(path) or {}):
            file.unlink()
            say(f"{lock.name}: DVC's cache held other bytes of {path} than it says; removed")


def put_in_order(project: Project, graph: Iterable[str]) -> None:
    """Put dvc.lock's stages into the order of ``graph``, in which `dvc repro` writes them.

    Stages that run side by side are written as they end. So the file does not tell who ended first,
    who was killed, and which of them somebody ran by hand. What dvc.yaml no longer has stays last.
    """
    with _while_nobody_writes(project):
        text = _text(project)
        now = _order(text)
        wanted = [name for name in graph if name in now]
        wanted += [name for name in now if name not in wanted]
        if now != wanted:
            storage.write_bytes(project.dvc_lock, _reordered(text, wanted).encode())


def _text(project: Project) -> str:
    return project.dvc_lock.read_text(encoding="utf-8") if project.dvc_lock.exists() else ""


def _order(text: str) -> list[str]:
    """Return the stages' names in a dvc.lock as DVC wrote it."""
    return re.findall(r"^  (\S.*):$", text, flags=re.MULTILINE)


def _reordered(text: str, wanted: Sequence[str]) -> str:
    """Return dvc.lock with the stages' blocks, which DVC wrote, in another order."""
    head, *blocks = re.split(r"^(?=  \S)", text, flags=re.MULTILINE)
    by_name = dict(zip(_order(text), blocks, strict=True))
    return head + "".join(by_name[name] for name in wanted)


@contextmanager
def _while_nobody_writes(project: Project) -> Iterator[None]:
    """Hold the lock that DVC holds while it writes dvc.lock."""
    with dvc_private.repository_lock(project.root):
        yield


def mend_cut_files(project: Project, say: Callable[[str], None]) -> None:
    """Mend what a kill has cut off; ``say`` gets a line for each file."""
    _mend_dvc_lock(project, say)
    _mend_rwlock(project, say)


def _mend_dvc_lock(project: Project, say: Callable[[str], None]) -> None:
    """Put the kept copy in place of a dvc.lock that is cut off; without one, remove it.

    Raises BusyError while another DVC command is at work.
    """
    if _is_as_kept(project) or dvc_lock_is_whole(project):
        return
    with repository(project.root) as repo, repo.lock:
        if dvc_lock_is_whole(project):  # another command was writing it
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


def dvc_lock_is_whole(project: Project) -> bool:
    """Return whether dvc.lock is absent or what DVC and the lineage can read."""
    from voluptuous import MultipleInvalid

    if not project.dvc_lock.exists():
        return True
    try:
        locked(project)
        dvc_private.require_lockfile(read_yaml(project.dvc_lock))
    except (CutLockError, MultipleInvalid):
        return False
    return True


def _mend_rwlock(project: Project, say: Callable[[str], None]) -> None:
    """Remove a rwlock that is no JSON, and from a whole one those who are dead.

    The guard is held for moments only; whoever holds it now is alive, and leaves a whole file.
    """
    path = dvc_private.temporary_folder(project.root) / dvc_private.RWLOCK
    if not path.exists() or (users := _users(path)) and users == _of_the_living(users):
        return
    from dvc.lock import LockError

    with contextlib.suppress(LockError), dvc_private.rwlock_guard(project.root):
        users = _users(path)
        if users is None:
            path.unlink()
            say(".dvc/tmp/rwlock was cut off when a run was killed; removed")
        else:
            storage.write_bytes(path, json.dumps(_of_the_living(users)).encode())


def _users(path: Path) -> dict[str, Any] | None:
    """Return who writes and who reads; None where the file is cut off."""
    try:
        users: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError:
        return None
    return users


def _of_the_living(users: dict[str, Any]) -> dict[str, Any]:
    """Return who writes ({path: process}) and who reads ({path: processes}), without the dead."""
    write = {path: one for path, one in users.get("write", {}).items() if _lives(one)}
    read = {
        path: [one for one in some if _lives(one)] for path, some in users.get("read", {}).items()
    }
    return {"write": write, "read": {path: some for path, some in read.items() if some}}


def _lives(user: dict[str, Any]) -> bool:
    """Return whether the process runs, and is not another that has got the number since."""
    arguments = " ".join(user["cmd"].split(" ")[1:])
    try:
        process = psutil.Process(int(user["pid"]))
        return process.status() != psutil.STATUS_ZOMBIE and arguments in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:  # another user's: it cannot be told
        return True
