"""When each study arrived, and from where.

By what the intake has written (.lapvqa/arrivals.jsonl); of a study that it does not name, by the
ingest after which it was first noticed here: without dates in the tables (``ingest.deid.dates`` is
drop) nothing else tells. What was noticed is kept in lines, so that an erasure drops those of its
patient and no others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lapvqa import storage
from lapvqa.arrivals import first_of_studies
from lapvqa.lineage import recording
from lapvqa.lineage.runs import FINISHED
from lapvqa.project import Project


@dataclass(frozen=True)
class Arrival:
    """When (seconds since the epoch) and from where; an empty source is not known."""

    at: float
    source: str = ""


def note(project: Project, studies: Sequence[str], now: float) -> dict[str, Arrival]:
    """Return the arrival of every study (key), and remember those that are new here."""
    told = {
        study: Arrival(one.at.timestamp(), one.source)
        for study, one in first_of_studies(project.arrivals).items()
    }
    seen = storage.read_json_lines(project.noticed_studies)
    noticed = {line["study"]: Arrival(line["at"]) for line in seen}
    default = Arrival(_last_ingest(project, now))
    new = {key: default for key in studies if key not in noticed}
    if new:
        lines = [{"study": key, "at": one.at} for key, one in (noticed | new).items()]
        write_lines(project.noticed_studies, lines)
    known = noticed | new | told
    return {key: known[key] for key in studies}


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON objects, one a line, atomically."""
    storage.write_bytes(path, b"".join(json.dumps(line).encode() + b"\n" for line in lines))


def _last_ingest(project: Project, now: float) -> float:
    """Return when the last ingest had finished, as far as the ledger knows; else now."""
    ended = [
        run.started + run.seconds
        for run in recording.told(project)
        if run.stage == "ingest" and run.outcome == FINISHED and run.seconds
    ]
    return min(max(ended, default=now), now)
