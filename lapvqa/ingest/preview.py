"""What the pipeline makes of a file, a folder or a report, before anybody runs it.

Everything goes through the functions of the stages ingest and tokens; nothing is written, and the
key that hashes identifiers is made for this one look, so no hash can be compared with a project's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from lapvqa.dicom.reasons import Reason
from lapvqa.ingest.verdicts import Candidate
from lapvqa.text.sections import TargetText


@dataclass(frozen=True)
class ReportPreview:
    """One report: which words would be learnt, as how many tokens, and what was noticed in it."""

    path: str
    target: TargetText
    num_tokens: int
    """Begin and end included, before any cut."""
    is_cut: bool
    is_sided: bool
    flags: Counter[str]
    """Kinds of text that may identify somebody."""
    study: str = ""
    """The study it belongs to, as a number within this look."""


@dataclass(frozen=True)
class Preview:
    """A look at an archive: ``files`` in order of path, of which ``not_read`` were too many."""

    layout: str
    files: Sequence[Candidate]
    reports: Sequence[ReportPreview]
    rejected_reports: Sequence[tuple[str, Reason, str]]
    """Path, reason, detail."""
    num_studies: int = 0
    not_read: int = 0
    lists: dict[str, int] = field(default_factory=dict)
