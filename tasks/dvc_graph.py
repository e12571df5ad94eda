"""What there is to run and what is stale, asked of DVC in this process (no child, no lock kept).

``s.name`` is a stage's name everywhere; ``s.addressing`` depends on the working folder.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lapvqa.errors import BusyError, ConfigError
from lapvqa.project import Project
from lapvqa.uptodate.stagefile import locked

if TYPE_CHECKING:
    from dvc.repo import Repo


_SHOWN = 4


@dataclass(frozen=True)
class Node:
    """One stage of the graph; paths relative to the project."""

    name: str
    upstream: tuple[str, ...]
    """The stages whose outputs it reads."""
    deps: tuple[str, ...]
    outs: tuple[str, ...]
    metrics: tuple[str, ...]
    """Those of ``outs`` that DVC shows as metrics."""
    params: dict[str, Any]
    """Dotted key of params.yaml -> value, now."""
    always_changed: bool


def load_graph(root: Path) -> list[Node]:
    """Return the stages in the order in which `dvc repro` runs them, upstream first.

    Raises ConfigError where dvc.yaml or params.yaml cannot be read.
    """
    import networkx

    with repository(root) as repo:
        graph = repo.index.graph
        order = networkx.dfs_postorder_nodes(graph)
        return [_node(stage, graph) for stage in order if not stage.is_data_source]


def stale_stages(
    root: Path, graph: list[Node], *, skip: frozenset[str] = frozenset()
) -> dict[str, str]:
    """Return the stages that may have to run, in order, each with the reason.

    A stage is stale if DVC says so or anything upstream of it is; whether it then runs, DVC
    decides. ``skip``: stages that ran a moment ago and would be called changed for ever
    (always_changed). Raises BusyError while another `dvc repro` is at work.
    """
    with repository(root) as repo:
        status = {_name(key): facts for key, facts in repo.status().items()}
    known = locked(Project(root))
    stale: dict[str, str] = {}
    for node in graph:
        if node.name in skip:
            continue
        above = [name for name in node.upstream if name in stale]
        if node.name in status:
            stale[node.name] = (
                describe(status[node.name]) if node.name in known else "has not run here yet"
            )
        elif above:
            stale[node.name] = f"after {', '.join(above)}"
    return stale


def describe(facts: list[Any]) -> str:
    """Put DVC's status of one stage into words, the first few changes by name."""
    found: list[str] = []
    for fact in facts:
        if isinstance(fact, str):  # "changed command", "always changed"
            found.append(fact)
            continue
        for kind, changes in fact.items():
            what = "output " if kind == "changed outs" else ""
            for path, state in changes.items():
                if isinstance(state, dict):
                    found += [f"parameter {key} {how}" for key, how in state.items()]
                else:
                    found.append(f"{what}{path} {state}")
    shown = found[:_SHOWN]
    if len(found) > _SHOWN:
        shown.append(f"{len(found) - _SHOWN} more")
    return ", ".join(shown)


def _node(stage: Any, graph: Any) -> Node:
    from dvc.dependency import ParamsDependency

    params: dict[str, Any] = {}
    for dependency in stage.deps:
        if isinstance(dependency, ParamsDependency):
            params |= dependency.read_params()
    return Node(
        name=stage.name,
        upstream=tuple(sorted(other.name for other in graph.successors(stage))),
        deps=tuple(d.def_path for d in stage.deps if not isinstance(d, ParamsDependency)),
        outs=tuple(out.def_path for out in stage.outs),
        metrics=tuple(out.def_path for out in stage.outs if out.metric),
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
