"""What of the ledger belongs to one run or model: what a card, a bundle or an export tells of it.

A model is a run of export that left encoder.safetensors; to it belong the runs that it stands on,
and of each evaluation the latest that read it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from lapvqa.lineage import runs
from lapvqa.lineage.ledger import CODE, DECISION, LOOK, MODEL, PATCH, WAIVER, Entry
from lapvqa.lineage.runs import FINISHED, Run

WEIGHTS = "encoder.safetensors"
FIREWALL = "firewall"
"""The stage that looks for test samples in training."""
_EVALUATE = "evaluate@"


@dataclass(frozen=True)
class Told:
    """A run, and the entry that tells of it."""

    entry: Entry
    run: Run

    @property
    def id(self) -> str:
        """The id of the entry."""
        return self.entry.id

    @property
    def weights(self) -> str | None:
        """Path of the encoder's weights among the outputs; None unless the run made a model."""
        return next((path for path in self.run.outs if path.rpartition("/")[2] == WEIGHTS), None)


class Ancestry:
    """The runs of a ledger, by id."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries
        self.runs = {
            entry.id: Told(entry, run) for entry in entries if (run := runs.of_entry(entry))
        }

    def upstream(self, *told: Told) -> list[Told]:
        """Return these runs and all that they stand on, oldest first."""
        seen: dict[str, Told] = {}
        waiting = list(told)
        while waiting:
            one = waiting.pop()
            if one.id in seen:
                continue
            seen[one.id] = one
            sources = (self.runs.get(id) for id in one.run.sources.values())
            waiting += [source for source in sources if source is not None]
        return _in_order(seen.values())

    def evaluations(self, model: Told) -> list[Told]:
        """Return the latest run of each evaluation that read what a model's run wrote."""
        latest = {
            told.run.stage: told
            for told in self._finished()
            if told.run.stage.startswith(_EVALUATE) and model.id in told.run.sources.values()
        }
        return _in_order(latest.values())

    def scope(self, target: Told) -> list[Told]:
        """Return all runs that belong to a run or model, oldest first."""
        evaluated = self.evaluations(target) if target.weights else []
        return self.upstream(target, *evaluated)

    def predecessor(self, model: Told) -> Told | None:
        """Return the run that made the model before this one, at the same place."""
        path = model.weights
        earlier = [
            told
            for told in self._finished()
            if path in told.run.outs
            and told.entry.number < model.entry.number
            and told.run.outs[path] != model.run.outs[path]
        ]
        return earlier[-1] if earlier else None

    def beside(self, scope: Iterable[Told]) -> list[Entry]:
        """Return the other entries that runs name or that name runs: code, patches, decisions."""
        scope = list(scope)
        digests = {told.run.code for told in scope} | {told.run.patch for told in scope}
        named = [told.id for told in scope]
        weights = (told.run.files.get(told.weights or "", {}).get("sha256") for told in scope)
        named += [digest for digest in weights if digest]
        found = []
        for entry in self.entries:
            if entry.payload is None:
                continue
            if entry.kind in (CODE, PATCH) and entry.payload["digest"] in digests:
                found.append(entry)
            elif entry.kind in (MODEL, DECISION, WAIVER, LOOK):
                text = json.dumps(entry.payload)
                if any(name in text for name in named):
                    found.append(entry)
        return found

    def _finished(self) -> list[Told]:
        return [told for told in self.runs.values() if told.run.outcome == FINISHED]


def _in_order(told: Iterable[Told]) -> list[Told]:
    return sorted(told, key=lambda one: one.entry.number)
