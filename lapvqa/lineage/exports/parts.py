"""What all exports tell of: runs, the artefacts between them, and what was checked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lapvqa.errors import ConfigError
from lapvqa.evaluation.results import CONTAMINATED, state_of
from lapvqa.lineage import chosen
from lapvqa.lineage.ancestry import FIREWALL, Ancestry, Told
from lapvqa.lineage.ledger import DECISION
from lapvqa.project import Project
from lapvqa.uptodate.stagefile import overlap

_PASSED = {"PROMOTE", "PASS", "KEEP", "ACCEPT"}


@dataclass(frozen=True)
class Artefact:
    """An output of a run, or data whose maker the ledger does not know: a file, or a folder."""

    path: str
    md5: str
    run: str | None
    """Id of the run that made it."""
    facts: dict[str, Any] = field(default_factory=dict)
    """bytes; sha256 of a file; rows of a table; files of a folder."""

    @property
    def version(self) -> str:
        """The sha256 of a file, else the md5 as DVC has it (a folder's ends in .dir)."""
        return str(self.facts.get("sha256", self.md5))

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of shards, one artefact however many files it holds."""
        return self.md5.endswith(".dir")


@dataclass(frozen=True)
class Check:
    """A test of a run: a gate's verdict, or whether training saw test samples."""

    name: str
    status: str
    """pass, fail or skip."""
    actual: str


def selected(project: Project, ancestry: Ancestry, target: str | None) -> list[Told]:
    """Return the runs to export, oldest first: those of a run or model, or all.

    Raises ConfigError if there are none.
    """
    if target is not None:
        return ancestry.scope(chosen.run(project, ancestry, target))
    if not ancestry.runs:
        raise ConfigError("expected runs in the ledger, found none", hint="run `lapvqa run` first")
    return list(ancestry.runs.values())


def outputs(told: Told) -> list[Artefact]:
    """Return what a run wrote."""
    return [
        Artefact(path, md5, told.id, told.run.files.get(path, {}))
        for path, md5 in sorted(told.run.outs.items())
    ]


def inputs(ancestry: Ancestry, told: Told) -> list[Artefact]:
    """Return what a run read, each artefact once; a file within an output folder is the folder."""
    found: dict[tuple[str | None, str], Artefact] = {}
    for path, md5 in sorted(told.run.deps.items()):
        source = ancestry.runs.get(told.run.sources.get(path, ""))
        of_source = outputs(source) if source else []
        made = next((one for one in of_source if overlap(path, one.path)), None)
        artefact = made or Artefact(path, md5, None)
        found[artefact.run, artefact.path] = artefact
    return list(found.values())


def checks(ancestry: Ancestry, told: Told) -> Iterator[Check]:
    """Yield the verdicts about a run, and what its evaluation says of leaks."""
    for entry in ancestry.entries:
        verdict = (entry.payload or {}).get("verdict") if entry.kind == DECISION else None
        if verdict is not None and told.id in json.dumps(entry.payload):
            status = "pass" if str(verdict).upper() in _PASSED else "fail"
            yield Check("gate", status, str(verdict))
    counts = told.run.counts
    if told.run.stage == FIREWALL:
        leaked = counts.get("shared_images", 0) and not counts.get("excluded_images", 0)
        yield Check("leakage", "fail" if leaked else "pass", json.dumps(counts, sort_keys=True))
    for path, facts in sorted(told.run.files.items()):
        if "evaluation" in facts:
            found = facts["evaluation"].get("contaminated")
            status = "skip" if found is None else "pass"
            if found:  # of a training that nobody knows nothing is proved
                status = "fail" if state_of(found["counts"]) == CONTAMINATED else "skip"
            yield Check(f"leakage: {path}", status, json.dumps(found, sort_keys=True))
