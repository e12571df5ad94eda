"""An archive by months: YEAR/MONTH/ACCESSION/*.dcm, and reports/ACCESSION.txt.

The accession number names study and report; the patient comes from the DICOM header.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa

from lapvqa.identity import Ids
from lapvqa.ingest.archives.protocol import (
    NO_LABELS,
    KnownStudies,
    Matches,
    ReportText,
    nothing_listed,
)
from lapvqa.ingest.archives.report_files import ReportFiles, decode_report

_REPORT = re.compile(r"(?:^|/)reports/(\w+)\.txt$")


class MonthlyArchive:
    """Folders of months with one folder per accession number."""

    name = "monthly"
    pattern = re.compile(r"(?:^|/)\d{4}/\d\d/(\w+)/[^/]+\.dcm$")
    looked_for = "reports/ACCESSION.txt in the source folder"
    has_split = False
    tables: Sequence[str] = ()
    missing: Mapping[str, int] = MappingProxyType({})

    def __init__(self, folder: Path, paths: Sequence[str], images: Sequence[str]) -> None:
        self.images = images
        self._reports = ReportFiles(folder, paths, _REPORT, packed=())
        self.reports: Sequence[str] = self._reports.paths

    def ids(self, path: str) -> Ids | None:
        """Return the accession number for the study; image and patient are in the header."""
        match = self.pattern.search(path)
        return Ids(study=match[1]) if match else None

    def listed(self, ids: pa.Table) -> pa.Table:
        """Return nothing: there are no tables."""
        return nothing_listed(ids)

    def match_reports(self, known: KnownStudies) -> Matches:
        """Match by the accession number; studies have keys, so it is read from a path again."""
        reports = {}
        for study, path in known.first_images.items():
            accession = self.pattern.search(path)
            report = self._reports.path_of(accession[1]) if accession else None
            if report is not None:
                reports[study] = report
        return Matches.by_name(reports, "accession number")

    def report_stamp(self, path: str) -> tuple[int, int]:
        """Return size and modification time."""
        return self._reports.stamp(path)

    def read_report(self, path: str) -> ReportText:
        """Read a text file."""
        return decode_report(self._reports.read(path))

    def labels(self) -> pa.Table:
        """Return no labels: there are no tables."""
        return NO_LABELS
