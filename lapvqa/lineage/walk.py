"""The walk upstream: from a file, a metric or a run to the inventory of the DICOM files.

Edges are dvc.lock's (stage, dependency md5, output md5); an older run, whose outputs dvc.lock no
longer names, is walked through the ledger.
"""

from __future__ import annotations

import difflib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lapvqa.errors import ConfigError
from lapvqa.lineage.origins import Origin, Origins
from lapvqa.project import Project
from lapvqa.uptodate import hashes, input_folders

Key = tuple[str, str]
"""Path relative to the project, md5."""


@dataclass(frozen=True)
class LineageTarget:
    """A question, answered with the artefacts to start from."""

    asked: str
    artefacts: tuple[Key, ...]
    metric: str | None = None
    """Name of the metric asked for."""
    value: Any = None
    """Its value per system, as metrics.json has it."""
    remark: str = ""
    """What the reader must know, such as a file that was changed by hand."""


@dataclass(frozen=True)
class ArtefactNode:
    """One artefact of the chain."""

    path: str
    md5: str
    kind: str
    """output | code | input"""
    origin: Origin | None
    """None for what no stage makes."""
    inputs: tuple[Key, ...]
    facts: dict[str, Any]
    """For an inventory: files and bytes listed."""


@dataclass(frozen=True)
class Lineage:
    """A target and everything upstream of it."""

    target: LineageTarget
    nodes: dict[Key, ArtefactNode]
    """The target's artefacts first, each before what it was made from."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values: the question, and the chain with its edges."""
        target = asdict(self.target)
        target["artefacts"] = [_plain_key(key) for key in self.target.artefacts]
        chain = []
        for node in self.nodes.values():
            item = asdict(node)
            item["inputs"] = [_plain_key(key) for key in node.inputs]
            if node.origin:
                del item["origin"]["deps"], item["origin"]["outs"]
            chain.append(item)
        return {"target": target, "chain": chain}


def trace(project: Project, asked: str) -> Lineage:
    """Walk from what ``asked`` names up to the inventory.

    Raises ConfigError if it is no file, metric or run that this project made.
    """
    origins = Origins(project)
    target = _resolve(project, asked, origins)
    nodes: dict[Key, ArtefactNode] = {}
    waiting: list[tuple[Key, float | None]] = [(key, None) for key in target.artefacts]
    while waiting:
        key, before = waiting.pop(0)
        if key in nodes:
            continue
        origin = origins.of(*key, before=before)
        nodes[key] = _node(project, key, origin)
        if origin:
            waiting += [(upstream, origin.started) for upstream in nodes[key].inputs]
    return Lineage(target, nodes)


def _node(project: Project, key: Key, origin: Origin | None) -> ArtefactNode:
    path, md5 = key
    if origin is None:
        kind = "code" if path.startswith("lapvqa/") else "input"
        return ArtefactNode(path, md5, kind, None, (), {})
    facts = input_folders.summary(project, path, md5)
    return ArtefactNode(path, md5, "output", origin, tuple(origin.deps.items()), facts)


def _plain_key(key: Key) -> dict[str, str]:
    return {"path": key[0], "md5": key[1]}


def _resolve(project: Project, asked: str, origins: Origins) -> LineageTarget:
    """Find what ``asked`` means; ConfigError with the nearest known names otherwise."""
    run = _run(asked, origins)
    if run:
        return LineageTarget(asked, run)
    path, _, metric = asked.partition(":")
    task, _, task_metric = asked.partition(".")
    if not metric and task_metric and _lock_key(origins, f"results/{task}/metrics.json"):
        path, metric = f"results/{task}/metrics.json", task_metric
    relative = _relative(project, path)
    key = _lock_key(origins, relative)
    if key is None:
        raise _unknown(asked, origins)
    if not metric:
        return LineageTarget(asked, (key,), remark=_remark(project, relative, key))
    value = _metric(project.root / relative, metric)
    return LineageTarget(asked, (key,), metric, value, _remark(project, relative, key))


def _run(asked: str, origins: Origins) -> tuple[Key, ...]:
    """Return what a run made: asked by its MLflow or Prefect (flow or task) id."""
    made: dict[Key, None] = {}
    for entry in origins.entries:
        if asked in (entry.prefect_flow_run, entry.prefect_task_run, entry.mlflow_run):
            made |= dict.fromkeys(entry.outs.items())
    return tuple(made)


def _relative(project: Project, path: str) -> str:
    here = Path(os.path.normpath(Path.cwd() / path))
    root = Path(os.path.normpath(project.root))
    inside = here.is_relative_to(root) and (here.exists() or here.parent != root)
    return here.relative_to(root).as_posix() if inside else Path(path).as_posix()


def _lock_key(origins: Origins, path: str) -> Key | None:
    """Return what dvc.lock calls ``path``: an output, a dependency, or the folder around it."""
    outs: dict[str, str] = {}
    deps: dict[str, str] = {}
    for lock in origins.locks.values():
        outs |= lock.outs
        deps |= lock.deps
    for known in (outs, deps):
        if path in known:
            return path, known[path]
    around = [known for known in outs if path.startswith(f"{known}/")]
    return (around[0], outs[around[0]]) if around else None


def _remark(project: Project, asked: str, key: Key) -> str:
    path, md5 = key
    now = hashes.Hasher(project, {}).md5(path)
    if now is None:
        return f"{path} is not on this disk; this is what dvc.lock says of it"
    if now != md5:
        return f"{path} on this disk differs from what dvc.lock names; this is dvc.lock's"
    return f"{asked} is part of {path}" if asked != path else ""


def _metric(path: Path, name: str) -> Any:
    if not path.exists():
        return None
    metrics = json.loads(path.read_bytes())
    systems = metrics.get("systems", {})
    by_system = {system: values[name] for system, values in systems.items() if name in values}
    if by_system:
        return by_system
    if name in metrics:
        return metrics[name]
    known = sorted({metric for values in systems.values() for metric in values})
    near = difflib.get_close_matches(name, known, n=1)
    raise ConfigError(
        f"{path.parent.name} has no metric {name!r}",
        hint=f"did you mean {near[0]}?" if near else f"metrics: {', '.join(known) or 'none'}",
    )


def _unknown(asked: str, origins: Origins) -> ConfigError:
    known = sorted({path for lock in origins.locks.values() for path in lock.outs})
    if not known:
        return ConfigError(
            f"nothing is known of {asked!r}: no stage has run yet", hint="run `lapvqa run` first"
        )
    near = difflib.get_close_matches(asked, known, n=3, cutoff=0.5) or known[:8]
    return ConfigError(
        f"{asked!r} is no file, metric or run that this project made",
        hint=f"ask for a file ({', '.join(near)}), a metric (TASK.METRIC) or a run id",
    )
