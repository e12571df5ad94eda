"""Which test patients nobody gets to see: a keyed share of those who arrive, for the gate alone.

sealed.json, in the project's folder, meant for git, says the rule; who is sealed follows from it
and from the archive's own split ``test``, on every machine, at every later delivery. A patient
whose results somebody may have seen before the rule was made is never sealed: the file holds short
digests of these. Public test sets are shown to everybody and have no sealed part.

An evaluation predicts both shares at once. Rows of sealed patients go into sealed.parquet, which
``lapvqa.gate`` alone reads; predictions.parquet, and so every number, curve and page, has the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from lapvqa import storage
from lapvqa.params import Section, Share, read_json
from lapvqa.project import Project

if TYPE_CHECKING:
    import pyarrow as pa

SEALED = "sealed.parquet"
"""Beside predictions.parquet, with its columns: the rows of sealed patients."""

_PURPOSE = "sealed test set"
_MARK = 8  # hex digits: enough to know one again, too few to say who it is


class SealRule(Section):
    """All of sealed.json; a share of 0 seals nobody.

    ``round``: another one draws anew. ``shown``: marks of those whom the share would seal, but
    whose results were shown before.
    """

    share: Share = 0.0
    round: str = ""
    opened: str = ""
    shown: list[str] = []

    def reserves(self, patient_key: str) -> bool:
        """Tell whether a test patient of this key is sealed."""
        drawn = is_reserved(patient_key, share=self.share, round_name=self.round)
        return drawn and self.mark(patient_key) not in self.shown

    def mark(self, patient_key: str) -> str:
        """Return a short digest of a key."""
        return hashlib.sha256(f"shown\0{self.round}\0{patient_key}".encode()).hexdigest()[:_MARK]


def is_reserved(patient_key: str, *, share: float, round_name: str = "") -> bool:
    """Tell whether a patient belongs to the sealed share (0..1); ``round_name`` draws anew.

    By the hash of the patient's key alone: whatever else is known of the patient.
    """
    text = f"{_PURPOSE}\0{round_name}\0{patient_key}"
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    return number < share * 2**64


def read_rule(project: Project) -> SealRule:
    """Read sealed.json; without the file nobody is sealed. ConfigError if it is no such file."""
    hint = "restore the file from git; without it sealed patients would be shown"
    return read_json(SealRule, project.sealed, hint=hint)


def write_rule(
    project: Project, *, share: float, round_name: str, opened: str, shown: Iterable[str]
) -> SealRule:
    """Write sealed.json; ``shown``: keys of the patients who stay out of the sealed share."""
    rule = SealRule(share=share, round=round_name, opened=opened)
    marks = {rule.mark(key) for key in shown if rule.reserves(key)}
    rule = rule.model_copy(update={"shown": sorted(marks)})
    storage.write_json(project.sealed, rule.model_dump())
    return rule


def tested_patients(project: Project) -> frozenset[str]:
    """Return the keys of the patients in the archive's own split ``test``."""
    import pyarrow.compute as pc  # here: many only ask for the file's name

    from lapvqa.schemas import IMAGES

    images = storage.read_table(project.images, IMAGES, made_by="ingest")
    return frozenset(images.filter(pc.equal(images["split"], "test"))["patient_key"].to_pylist())


def sealed_patients(project: Project) -> frozenset[str]:
    """Return the keys of the patients who are sealed now."""
    rule = read_rule(project)
    if not rule.share:
        return frozenset()
    return frozenset(filter(rule.reserves, tested_patients(project)))


def divide(predictions: pa.Table, patients: frozenset[str]) -> tuple[pa.Table, pa.Table]:
    """Return the rows that may be shown, and those of ``patients``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    own = pc.is_in(predictions["patient"], pa.array(sorted(patients), pa.string()))
    return predictions.filter(pc.invert(own)), predictions.filter(own)
