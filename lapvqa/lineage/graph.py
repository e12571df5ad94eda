"""The walk upstream: from a file, a metric or a run to the inventory of the DICOM files.

Edges are dvc.lock's (stage, dependency md5, output md5); an older run, whose outputs dvc.lock no
longer names, is walked through the ledger.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from lapvqa.lineage.origins import Origin, Origins
from lapvqa.lineage.targets import Key, Target, resolve
from lapvqa.project import Project
from lapvqa.uptodate import inputs


@dataclass(frozen=True)
class Node:
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

    target: Target
    nodes: dict[Key, Node]
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
    target = resolve(project, asked, origins)
    nodes: dict[Key, Node] = {}
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


def _node(project: Project, key: Key, origin: Origin | None) -> Node:
    path, md5 = key
    if origin is None:
        kind = "code" if path.startswith("lapvqa/") else "input"
        return Node(path, md5, kind, None, (), {})
    facts = inputs.summary(project, path, md5)
    return Node(path, md5, "output", origin, tuple(origin.deps.items()), facts)


def _plain_key(key: Key) -> dict[str, str]:
    return {"path": key[0], "md5": key[1]}
