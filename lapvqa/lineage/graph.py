"""Answers as graphs: nodes with facts, edges from what was read to what it became."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

from lapvqa.lineage import index, registered, wording
from lapvqa.lineage.difference import Difference
from lapvqa.lineage.impact import Impact
from lapvqa.lineage.origins import EVALUATION, Origin, Origins
from lapvqa.lineage.reasons import Why
from lapvqa.lineage.targets import Key
from lapvqa.lineage.walk import Lineage
from lapvqa.project import Project

RUN, FILE, ASKED, MODEL, PERSON = "run", "file", "asked", "model", "person"


@dataclass
class Node:
    """One thing in the picture."""

    title: str
    kind: str
    facts: dict[str, str] = field(default_factory=dict)
    """What is shown when it is chosen."""
    marked: bool = False
    """Drawn so that it is seen: what was asked for, or what differs."""


@dataclass
class Graph:
    """Nodes by id, and edges downstream."""

    nodes: dict[str, Node] = field(default_factory=dict)
    edges: dict[tuple[str, str], None] = field(default_factory=dict)

    def add(self, name: str, node: Node) -> None:
        """Add a node, unless it is there."""
        self.nodes.setdefault(name, node)

    def connect(self, source: str, target: str) -> None:
        """Add an edge between two nodes that are there."""
        if source in self.nodes and target in self.nodes and source != target:
            self.edges[source, target] = None

    def layers(self) -> list[list[str]]:
        """Return the nodes by their longest way from a source, close to their neighbours."""
        above: dict[str, set[str]] = {name: set() for name in self.nodes}
        for source, target in self.edges:
            above[target].add(source)
        try:
            order = list(TopologicalSorter(above).static_order())
        except CycleError:  # a taken-over ledger may err; a picture shall not fail for it
            order = list(self.nodes)
        depth: dict[str, int] = {}
        for name in order:
            depth[name] = 1 + max((depth.get(source, 0) for source in above[name]), default=-1)
        layers: list[list[str]] = [[] for _ in range(1 + max(depth.values(), default=-1))]
        for name in self.nodes:
            layers[depth[name]].append(name)
        place: dict[str, float] = {}
        for layer in layers:
            layer.sort(key=lambda name: _mean([place[one] for one in above[name]]))
            place |= {name: number - len(layer) / 2 for number, name in enumerate(layer)}
        return layers

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "nodes": {name: vars(node) for name, node in self.nodes.items()},
            "edges": [list(edge) for edge in self.edges],
        }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def of_lineage(lineage: Lineage) -> Graph:
    """Draw everything upstream of a target."""
    graph = Graph()
    origins = {node.origin.id: node.origin for node in lineage.nodes.values() if node.origin}
    for run in [*origins.values(), *lineage.runs]:
        add_run(graph, run)
    for key, node in lineage.nodes.items():
        facts = {"md5": key.md5, **{name: str(value) for name, value in node.facts.items()}}
        asked = key in lineage.target.artefacts
        graph.add(_name(key), Node(key.path, FILE, facts, marked=asked))
        if key.run is not None:
            graph.connect(key.run, _name(key))
    for origin in origins.values():
        for path, md5 in origin.run.deps.items():
            graph.connect(_name(Key(path, md5, origin.run.sources.get(path))), origin.id)
    return graph


def of_impact(impact: Impact) -> Graph:
    """Draw everything downstream of a target."""
    graph = Graph()
    title = f"{impact.target.kind} {impact.target.key or impact.target.asked}"
    graph.add("asked", Node(title, PERSON, {"asked for": title}, marked=True))
    shards: dict[str, int] = {}
    for film in impact.films:
        path = f"data/images/{film['shard']}"
        shards[path] = shards.get(path, 0) + 1
    for place in impact.tokens:
        shards[place.path] = len(place.rows)
    for path, rows in shards.items():
        graph.add(path, Node(path, FILE, {"rows of it": str(rows)}))
        graph.connect("asked", path)
    for one in impact.replaced:
        for digest, facts in (
            (one["before"], {}), (one["now"], {"replaces": one["before"]}),
        ):  # fmt: skip
            shown = {"digest": digest, "source": one["source"], **facts}
            graph.add(digest, Node(f"{one['what']} {digest[:8]}", FILE, shown))
        graph.connect("asked", one["before"])
        graph.connect(one["before"], one["now"])
    for run in impact.runs:
        add_run(graph, run)
        for path, md5 in run.run.outs.items():
            graph.add(_name(Key(path, md5, run.id)), Node(path, FILE, _file_facts(run, path, md5)))
            graph.connect(run.id, _name(Key(path, md5, run.id)))
    for run in impact.runs:
        for path, md5 in run.run.deps.items():
            graph.connect(_name(Key(path, md5, run.run.sources.get(path))), run.id)
    for run in impact.starts:
        for path in shards or ["asked"]:
            graph.connect(path, run.id)
    _add_versions(graph, list(impact.models), list(impact.runs))
    return graph


def of_difference(difference: Difference) -> Graph:
    """Draw the runs behind both; those that differ are marked."""
    graph = Graph()
    for side in difference.sides:
        runs = {**side.runs, **side.judged}
        for stage, run in runs.items():
            add_run(graph, run, marked=stage in difference.changes)
        for run in runs.values():
            for source in run.run.sources.values():
                graph.connect(source, run.id)
    return graph


def of_present(project: Project) -> Graph:
    """Draw what the project holds now: dvc.lock's runs, evaluations and registered models."""

    def answer(database: sqlite3.Connection) -> Graph:
        origins = Origins(database)
        rows = database.execute(
            "SELECT run FROM present UNION SELECT max(run) FROM runs WHERE stage = ? "
            "GROUP BY (SELECT path FROM artefacts a WHERE a.run = runs.run LIMIT 1)",
            (EVALUATION,),
        ).fetchall()  # fmt: skip
        found = [run for (number,) in rows if (run := origins.at(number)) is not None]
        graph = Graph()
        for run in found:
            add_run(graph, run)
            for path, md5 in run.run.outs.items():
                name = _name(Key(path, md5, run.id))
                graph.add(name, Node(path, FILE, _file_facts(run, path, md5)))
                graph.connect(run.id, name)
        for run in found:
            for path, md5 in run.run.deps.items():
                _connect_input(graph, Key(path, md5, run.run.sources.get(path)), run, origins)
        _add_versions(graph, registered.versions(project, database), found)
        return graph

    return index.ask(project, answer)


def _connect_input(graph: Graph, key: Key, run: Origin, origins: Origins) -> None:
    """Connect a run with the output that it read, of which ``key`` may be a file within."""
    source = origins.by_id(key.run)
    for path, md5 in source.run.outs.items() if source else ():
        if key.path == path or key.path.startswith(f"{path}/"):
            graph.connect(_name(Key(path, md5, key.run)), run.id)


def add_run(graph: Graph, run: Origin, *, marked: bool = False) -> None:
    """Add a run with all that is known of it."""
    graph.add(run.id, Node(run.stage, RUN, dict(wording.run_facts(run)), marked=marked))


def _add_versions(graph: Graph, versions: list[registered.Version], runs: list[Origin]) -> None:
    for version in versions:
        name = f"models:/{version.name}/{version.version}"
        for run in runs:
            for path, facts in run.run.files.items():
                if version.sha256 is not None and facts.get("sha256") == version.sha256:
                    facts_shown = {"registered as": name, "sha256": version.sha256}
                    graph.add(name, Node(version.title, MODEL, facts_shown))
                    graph.connect(_name(Key(path, run.run.outs[path], run.id)), name)


def _file_facts(run: Origin, path: str, md5: str) -> dict[str, str]:
    known = run.run.files.get(path, {})
    return {"md5": md5, **{name: str(value) for name, value in known.items()}}


def _name(key: Key) -> str:
    return f"{key.run or 'input'}:{key.path}"


def of_why(answer: Why) -> Graph:
    """Draw a stage's last run, the one before, and the inputs that changed between them."""
    graph = Graph()
    for run in (answer.previous, answer.last):
        if run is None:
            continue
        add_run(graph, run, marked=run is answer.last)
        changed = {change.name for change in answer.changes}
        for path, md5 in run.run.deps.items():
            name = _name(Key(path, md5, run.run.sources.get(path)))
            graph.add(name, Node(path, FILE, {"md5": md5}, marked=path in changed))
            graph.connect(name, run.id)
    return graph
