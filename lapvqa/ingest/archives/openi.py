"""Open-i's Indiana University collection: NLMCXR_png or NLMCXR_dcm, and ecgen-radiology/N.xml.

Reports may stay in NLMCXR_reports.tgz; images have to be unpacked. Report, study and patient are
one: the collection names no patients, so two studies of one person cannot be told from those of
two, and may come into different splits. Views and dates are in DICOM headers only.

Images are CXR1_1_IM-0001-3001.png or CXR10_IM-0002-1001.png (as ``parentImage`` names them),
1/1_IM-0001-3001.dcm in the DICOM files, and 1_IM-0001-3001.dcm.png in copies made of those.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from lapvqa.ingest.archives.contract import Ids, Listed, ReportText
from lapvqa.ingest.archives.openi_report import read_openi
from lapvqa.ingest.archives.report_files import ReportFiles

_REPORT = re.compile(r"(?:^|/)(\d+)\.xml$")
_PACKED_REPORTS = ("NLMCXR_reports.tgz", "NLMCXR_reports.tar.gz", "NLMCXR_reports.tar")


class OpenIArchive:
    """Open-i's collection; ids come from the file names."""

    name = "openi"
    looked_for = (
        "ecgen-radiology/*.xml in the source folder, and for NLMCXR_reports.tgz in it or next to it"
    )
    pattern = re.compile(
        r"(?:^|/)(?:CXR)?(\d+)(?:_\1)?_(IM-[\d-]+)(?:\.dcm)?\.(?:dcm|dicom|png|jpg|jpeg)$",
        re.IGNORECASE,
    )
    has_split = False
    missing: Mapping[str, int] = MappingProxyType({})

    def __init__(self, folder: Path, paths: Sequence[str], images: Sequence[str]) -> None:
        self.images = images
        self._reports = ReportFiles(folder, paths, _REPORT, _PACKED_REPORTS)
        self.reports: Sequence[str] = self._reports.paths

    def ids(self, path: str) -> Ids | None:
        """Return the image's name, and the report's id (CXR1) for study and patient."""
        match = self.pattern.search(path)
        if match is None:
            return None
        report = f"CXR{match[1]}"
        return Ids(f"{report}_{match[2]}", report, report)

    def listed(self, path: str) -> Listed:
        """Return nothing: the XML says nothing of a single image."""
        return Listed()

    def match_reports(
        self,
        studies: Mapping[str, Sequence[str]],
        copies: Mapping[str, Sequence[str]],
        *,
        study_key: Callable[[str], str] | None = None,
    ) -> dict[str, str]:
        """Match by the number in the names."""
        matches = {}
        for study, images in studies.items():
            image = self.pattern.search(images[0])
            report = self._reports.path_of(image[1]) if image else None
            if report is not None:
                matches[study] = report
        return matches

    def report_stamp(self, path: str) -> tuple[int, int]:
        """Return size and modification time, or size and CRC within the tgz."""
        return self._reports.stamp(path)

    def read_report(self, path: str) -> ReportText:
        """Read one XML and write its sections as MIMIC-CXR writes them."""
        match = _REPORT.search(path)
        return read_openi(self._reports.read(path), f"CXR{match[1]}" if match else "")

    def labels(self) -> Iterable[tuple[str, list[int | None]]]:
        """Return no labels: the collection has MeSH terms only."""
        return ()
