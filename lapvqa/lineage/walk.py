"""The walk upstream: from a file, a metric, a run or a film to the inventory of the DICOM files.

Edges go by run: what a run read is what the run that its entry names had left, whatever other runs
have left the same bytes. What no entry tells is walked by dvc.lock.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field, replace
from typing import Any

from lapvqa.lineage import index, targets
from lapvqa.lineage.origins import Origin, Origins
from lapvqa.lineage.row_numbers import PATIENT, STUDY
from lapvqa.lineage.runs import Run
from lapvqa.lineage.targets import FILM, Key, Target
from lapvqa.project import Project
from lapvqa.uptodate import input_folders

OUTPUT, CODE, INPUT, ERASED = "output", "code", "input", "erased"
"""Kinds of nodes. ERASED: a run made it, and what its entry said is gone."""


@dataclass(frozen=True)
class ArtefactNode:
    """One artefact of the chain."""

    path: str
    md5: str
    kind: str
    origin: Origin | None
    """None for what no stage makes."""
    inputs: tuple[Key, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    """Of an inventory: files and bytes listed. Else bytes, sha256, rows, files, as recorded."""


@dataclass(frozen=True)
class Lineage:
    """A target and everything upstream of it."""

    target: Target
    nodes: dict[Key, ArtefactNode]
    """The target's artefacts first, each before what it was made from."""
    runs: tuple[Origin, ...] = ()
    """Runs that were asked for themselves."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values: the question, and the chain with its edges."""
        target = self.target.to_json()
        origins = {run.id: run.to_json() for run in self._origins()}
        chain = []
        for key, node in self.nodes.items():
            origin = origins[node.origin.id] if node.origin else None
            inputs = [upstream._asdict() for upstream in node.inputs]
            chain.append({
                **key._asdict(), "kind": node.kind, "origin": origin, "inputs": inputs,
                "facts": node.facts,
            })  # fmt: skip
        return {
            "target": target, "runs": [run.to_json() for run in self.runs], "chain": chain,
        }  # fmt: skip

    def _origins(self) -> list[Origin]:
        return list({n.origin.id: n.origin for n in self.nodes.values() if n.origin}.values())


def trace(project: Project, asked: str) -> Lineage:
    """Walk from what ``asked`` names up to the inventory.

    Raises ConfigError if it is nothing that this project knows.
    """

    def answer(database: sqlite3.Connection) -> Lineage:
        target = targets.find(project, database, asked)
        return walk(project, database, target)

    return index.ask(project, answer)


def walk(project: Project, database: sqlite3.Connection, target: Target) -> Lineage:
    """Walk from a target that is found already."""
    origins = Origins(database)
    starts = target.artefacts or _stored(database, origins, target)
    nodes: dict[Key, ArtefactNode] = {}
    waiting = list(starts)
    while waiting:
        key = waiting.pop(0)
        if key not in nodes:
            nodes[key] = _node(project, key, origins)
            waiting += nodes[key].inputs
    if starts != target.artefacts:
        rows = _place(database, target)
        target = replace(target, artefacts=starts, remark=rows)
    runs = [origins.at(number) for number in target.runs]
    return Lineage(target, nodes, tuple(run for run in runs if run is not None))


def _stored(database: sqlite3.Connection, origins: Origins, target: Target) -> tuple[Key, ...]:
    """Return where a film, a study or a patient lies: the images that ingest left."""
    if target.kind not in (FILM, STUDY, PATIENT):
        return ()
    origin = origins.present("ingest")
    md5 = origin.run.outs.get("data/images") if origin else None
    return () if origin is None or md5 is None else (Key("data/images", md5, origin.id),)


def _place(database: sqlite3.Connection, target: Target) -> str:
    """Say in which rows of the shards a person's films lie."""
    column = {FILM: "image_key", STUDY: "study_key", PATIENT: "patient_key"}[target.kind]
    rows = database.execute(
        f"SELECT shard, row, split FROM films WHERE {column} = ? ORDER BY shard, row", (target.key,)
    ).fetchall()
    places = ", ".join(f"row {row['row']} of data/images/{row['shard']}" for row in rows[:4])
    more = f" and {len(rows) - 4} more" if len(rows) > 4 else ""
    split = f", split {rows[0]['split']}" if rows else ""
    return f"{target.kind} {target.key}: {places or 'no film is stored'}{more}{split}"


def _weights_gone_on_from(run: Run, origins: Origins) -> tuple[Key, ...]:
    """Return what a training went on from: named by its digest, not by a path of dvc.lock."""
    paths = sorted(run.sources.keys() - run.deps.keys())
    found = ((path, origins.by_id(run.sources[path])) for path in paths)
    return tuple(Key(path, of.run.outs[path], of.id) for path, of in found if of is not None)


def _node(project: Project, key: Key, origins: Origins) -> ArtefactNode:
    if key.run is None:
        kind = CODE if key.path.startswith(("lapvqa/", "params/")) else INPUT
        return ArtefactNode(key.path, key.md5, kind, None)
    origin = origins.by_id(key.run)
    if origin is None:
        return ArtefactNode(key.path, key.md5, ERASED, None)
    run = origin.run
    inputs = tuple(Key(path, md5, run.sources.get(path)) for path, md5 in run.deps.items())
    inputs += _weights_gone_on_from(run, origins)
    listed = input_folders.summary(project, key.path, key.md5)
    facts = listed or run.files.get(key.path, {})
    return ArtefactNode(key.path, key.md5, OUTPUT, origin, inputs, facts)
