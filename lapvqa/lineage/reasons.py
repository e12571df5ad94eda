"""Why a stage would run, or why it last ran: against the run of it before."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict, dataclass
from typing import Any

from lapvqa.errors import no_such
from lapvqa.lineage import changes, index
from lapvqa.lineage.changes import DATA, Change
from lapvqa.lineage.origins import Origin, Origins
from lapvqa.lineage.runs import as_asked
from lapvqa.project import Project
from lapvqa.uptodate import staleness


@dataclass(frozen=True)
class Why:
    """One stage: what would make it run now, and what made it run last."""

    stage: str
    stale: tuple[str, ...]
    """Reasons of ``lapvqa plan``; empty if it is up to date."""
    last: Origin | None
    previous: Origin | None
    changes: tuple[Change, ...]
    """Of the last run against the one before."""
    upstream: dict[str, str]
    """Input that changed -> the stage whose run changed it."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "stage": self.stage, "stale": list(self.stale),
            "last": self.last and self.last.to_json(),
            "previous": self.previous and self.previous.id,
            "changes": [asdict(change) for change in self.changes],
            "upstream": self.upstream,
        }  # fmt: skip


def why(project: Project, stage: str) -> Why:
    """Return why a stage is stale, or last ran; ConfigError for an unknown one."""
    states = {state.name: state for state in staleness.check(project)}

    def answer(database: sqlite3.Connection) -> Why:
        origins = Origins(database)
        last = origins.present(stage)
        if stage not in states and last is None:
            raise no_such("stage", stage, states, shown=as_asked(stage))
        previous = origins.before(last) if last else None
        found = changes.between(previous, last) if previous and last else []
        stale = tuple(states[stage].reasons) if stage in states and states[stage].stale else ()
        return Why(stage, stale, last, previous, tuple(found), _makers(origins, last, found))

    return index.ask(project, answer)


def _makers(origins: Origins, last: Origin | None, found: list[Change]) -> dict[str, str]:
    makers = {}
    for change in found:
        source = last.run.sources.get(change.name) if last and change.kind == DATA else None
        maker = origins.by_id(source)
        if maker is not None:
            makers[change.name] = maker.stage
    return makers
