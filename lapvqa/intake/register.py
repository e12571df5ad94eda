"""What the list of arrivals says: who has which accession number, and which report counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lapvqa import arrivals
from lapvqa.arrivals import Line

Worth = tuple[bool, int, int, int]
"""Of a report, the lower the better: as ingest chooses among several of one study."""
_STATUS = {"corrected": 0, "final": 1}


@dataclass
class Register:
    """What the list says of accession numbers and reports: who has which, by keyed hashes."""

    studies: dict[str, str | None] = field(default_factory=dict)
    """Study of each accession key; None if several have it."""
    reports: dict[str, Line] = field(default_factory=dict)
    """The event of the report that counts, by study or accession key."""

    @classmethod
    def load(cls, path: Path) -> Register:
        """Return the register of a list of arrivals."""
        register = cls()
        for event in arrivals.read(path):
            register.add(event)
        return register

    def add(self, event: Line) -> None:
        """Take one event into account."""
        study = event.get("study")
        for number in event.get("accession") or ():
            if study is not None and "report" not in event:
                self.studies[number] = study if self.studies.get(number, study) == study else None
                if number in self.reports:  # it came before its study
                    self.reports.setdefault(study, self.reports[number])
        if "report" in event:
            for key in (study, *(event.get("accession") or ())):
                if key:
                    self.reports[key] = event

    def study_of(self, accessions: Iterable[str]) -> str | None:
        """Return the only study with one of these accession keys; None if there is none."""
        found = {self.studies[key] for key in accessions if key in self.studies}
        return found.pop() if len(found) == 1 else None

    def report_of(self, keys: Iterable[str | None]) -> Line | None:
        """Return the event of the report that is known under one of these keys."""
        return next((self.reports[key] for key in keys if key in self.reports), None)


def worth(event: Line) -> Worth:
    """Return how good a report is, the lower the better: final, source, latest, corrected."""
    written = int((event.get("written") or "0").ljust(14, "0"))
    status = event.get("status") or ""
    return status == "preliminary", event["rank"], -written, _STATUS.get(status, 2)
