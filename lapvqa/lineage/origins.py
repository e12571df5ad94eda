"""The run behind an artefact, as the index knows it, and the runs that stand on it."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field, fields, replace
from typing import Any

from lapvqa.lineage.runs import Run, of_payload

EVALUATION = "evaluation"
"""Stage of a run of `lapvqa evaluate --encoder`, which is none of dvc.yaml."""

_LISTS = {"deps", "outs", "files", "sources", "code", "commit", "dirty"}


@dataclass(frozen=True)
class Code:
    """The code of a run in one line; ``listing`` has each file's md5."""

    digest: str
    listing: dict[str, str] = field(default_factory=dict)

    @property
    def files(self) -> int:
        """How many files and folders of code."""
        return len(self.listing)


@dataclass(frozen=True)
class Origin:
    """One run of one stage: what the ledger says, or dvc.lock alone."""

    number: int
    """In the index: of its entry."""
    id: str
    made: str
    """BY_RUN, OUTSIDE or ELSEWHERE of ``lapvqa.lineage.index``."""
    run: Run
    code: Code | None = None

    @property
    def stage(self) -> str:
        """Name in dvc.yaml, or EVALUATION."""
        return self.run.stage

    @property
    def started(self) -> float | None:
        """Seconds since the epoch; None if not known."""
        return self.run.started or None

    @property
    def test_samples(self) -> str | None:
        """Digest of the samples that an evaluation judged."""
        known = (facts.get("evaluation", {}) for facts in self.run.files.values())
        return next((said["samples_sha256"] for said in known if "samples_sha256" in said), None)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, without the lists of files."""
        run = {
            one.name: getattr(self.run, one.name) for one in fields(Run) if one.name not in _LISTS
        }
        code = self.code and {"digest": self.code.digest, "files": self.code.files}
        known = {
            "run": self.id, "made": self.made, "code": code,
            "git_commit": self.run.commit, "git_dirty": self.run.dirty,
        }  # fmt: skip
        return {**run, **known, "started": self.started, "seconds": self.run.seconds or None}


class Origins:
    """All runs of a project, read from the index one at a time."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self.database = database
        self._known: dict[int, Origin | None] = {}
        self._codes: dict[str, Code] = {}

    def at(self, number: int) -> Origin | None:
        """Return the run of an entry; None if what it said was erased."""
        if number not in self._known:
            self._known[number] = self._read(number)
        return self._known[number]

    def by_id(self, run_id: str | None) -> Origin | None:
        """Return the run with this id; None for none, or one that was erased."""
        row = self._one("SELECT run FROM runs WHERE id = ?", run_id)
        return None if row is None else self.at(row[0])

    def present(self, stage: str) -> Origin | None:
        """Return the run that made what dvc.lock names of a stage, else its latest finished one."""
        row = self._one("SELECT run FROM present WHERE stage = ?", stage) or self._one(
            "SELECT run FROM runs WHERE stage = ? AND outcome = 'finished' "
            "ORDER BY started DESC, run DESC", stage,
        )  # fmt: skip
        return None if row is None else self.at(row[0])

    def before(self, origin: Origin) -> Origin | None:
        """Return the finished run of the same stage before this one."""
        row = self._one(
            "SELECT run FROM runs WHERE stage = ? AND outcome = 'finished' AND run >= 0 "
            "AND started < ? AND run != ? ORDER BY started DESC, run DESC",
            origin.stage, origin.run.started or float("inf"), origin.number,
        )  # fmt: skip
        return None if row is None else self.at(row[0])

    def upstream(self, origin: Origin) -> dict[str, Origin]:
        """Return id -> run of this run and all that it stands on, nearest first."""
        found: dict[str, Origin] = {}
        waiting = [origin]
        while waiting:
            current = waiting.pop(0)
            if current.id not in found:
                found[current.id] = current
                sources = map(self.by_id, dict.fromkeys(current.run.sources.values()))
                waiting += [source for source in sources if source is not None]
        return found

    def downstream(self, runs: list[int]) -> list[Origin]:
        """Return the runs that stand on these, directly or not, oldest first; not these."""
        marks = ", ".join("?" * len(runs))
        rows = self.database.execute(
            f"""WITH RECURSIVE reached(run) AS (
                    SELECT used.run FROM used JOIN artefacts USING (artefact)
                    WHERE artefacts.run IN ({marks})
                    UNION
                    SELECT used.run FROM reached
                    JOIN artefacts ON artefacts.run = reached.run
                    JOIN used ON used.artefact = artefacts.artefact)
                SELECT run FROM reached JOIN runs USING (run) ORDER BY started, run""",
            runs,
        )
        found = [self.at(row[0]) for row in rows if row[0] not in runs]
        return [origin for origin in found if origin is not None]

    def users(self, artefacts: list[int]) -> list[int]:
        """Return the numbers of the runs that read one of these artefacts."""
        marks = ", ".join("?" * len(artefacts))
        rows = self.database.execute(
            f"SELECT DISTINCT run FROM used WHERE artefact IN ({marks})", artefacts
        )
        return [row[0] for row in rows]

    def code_files(self, origin: Origin) -> dict[str, str]:
        """Return path -> md5 of the code that a run ran; empty if not known."""
        return origin.code.listing if origin.code else {}

    def _read(self, number: int) -> Origin | None:
        row = self._one(
            "SELECT id, made, payload FROM runs JOIN entries USING (id) WHERE run = ?", number
        )
        if row is None or row["payload"] is None:
            return None
        run = of_payload(json.loads(row["payload"]))
        unnamed = self.database.execute("SELECT path, source FROM unnamed WHERE run = ?", (number,))
        run = replace(run, sources={**run.sources, **dict(map(tuple, unnamed))})
        return Origin(number, row["id"], row["made"], run, self._code(run.code))

    def _code(self, digest: str | None) -> Code | None:
        if digest is None:
            return None
        if digest not in self._codes:
            row = self._one(
                "SELECT payload FROM code JOIN entries USING (number) WHERE digest = ?", digest
            )
            listing = json.loads(row["payload"])["files"] if row and row["payload"] else {}
            self._codes[digest] = Code(digest, listing)
        return self._codes[digest]

    def _one(self, question: str, *values: object) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self.database.execute(question, values).fetchone()
        return row
