"""The protocol of a layout: what ingest asks of an archive, whoever made it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lapvqa.identity import Ids


@dataclass(frozen=True)
class Listed:
    """Entries of one image in the archive's own tables; None where there is none."""

    view: str | None = None
    date: str | None = None
    time: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class ReportText:
    """One report as the section parser reads it, and the digest of what the archive holds.

    ``sha256`` is of the report's own bytes (a file, a member of a zip or tgz). A layout whose
    reports are not plain text composes ``text`` of lines `` FINDINGS: ...`` as MIMIC-CXR writes.
    """

    text: str
    sha256: str
    is_utf8: bool = True


class Archive(Protocol):
    """One archive: its image files, its reports and its tables. Paths are relative, with /."""

    name: str
    images: Sequence[str]
    """Files to read as DICOM or, by their suffix, as PNG or JPEG pictures; sorted."""
    reports: Sequence[str]
    """Files, ``x.zip/member`` or ``x.tgz/member``, that may be a study's report; sorted."""
    tables: Sequence[str]
    """Files that the layout reads besides: its tables and lists, a packed file of reports."""
    looked_for: str
    """Where reports are looked for, in words, for the error when there is none."""
    has_split: bool
    """The archive brings an official split."""
    missing: Mapping[str, int]
    """Of each list of files that the archive brings (by its path), how many are not there."""

    def ids(self, path: str) -> Ids | None:
        """Return the ids in an image's path; None if it lies outside the layout."""

    def listed(self, path: str) -> Listed:
        """Return what the archive's tables say of an image."""

    def match_reports(
        self,
        studies: Mapping[str, Sequence[str]],
        copies: Mapping[str, Sequence[str]],
        *,
        study_key: Callable[[str], str] | None = None,
    ) -> dict[str, str]:
        """Return the report of each study by study key.

        ``studies`` holds each study's image files; ``copies`` those that lie elsewhere as copies,
        which show that a folder is not one study's alone. ``study_key`` hashes a Study Instance
        UID, so that a report named by it can be matched although only keys are known.
        """

    def report_stamp(self, path: str) -> tuple[int, int]:
        """Return two numbers that change when the report does: size and mtime, or size and CRC.

        Raises OSError if it cannot be found.
        """

    def read_report(self, path: str) -> ReportText:
        """Read one report; raises DicomError with UNREADABLE or BAD_REPORT."""

    def labels(self) -> Iterable[tuple[str, list[int | None]]]:
        """Yield study id and the 14 CheXpert labels in the order of schemas.CHEXPERT_LABELS."""
