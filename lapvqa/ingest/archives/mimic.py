"""MIMIC-CXR 2.0.0 / 2.1.0: files/pNN/pSUBJECT/sSTUDY/DICOMID.dcm, reports beside the study folder.

Any outer nesting (physionet.org/files/mimic-cxr/2.0.0/...) is fine, and so is a part of the
archive. Reports may stay in mimic-cxr-reports.zip. The tables are those of MIMIC-CXR-JPG
(``mimic_tables``): without its split table the patients are split by share.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from lapvqa.ingest.archives import loose
from lapvqa.ingest.archives.contract import Ids, Listed, ReportText
from lapvqa.ingest.archives.mimic_tables import (
    count_missing,
    find_tables,
    read_labels,
    read_metadata,
    read_split,
)
from lapvqa.ingest.archives.report_files import ReportFiles

_REPORT = re.compile(r"(?:^|/)p\d\d/p(\d{8})/s(\d{8})\.txt$")
_PACKED_REPORTS = ("mimic-cxr-reports.zip",)


class MimicArchive:
    """An archive in MIMIC-CXR's layout; ids come from the paths, not from the headers."""

    name = "mimic-cxr"
    looked_for = (
        "files/pNN/pSUBJECT/sSTUDY.txt beside the folder of each study, and for "
        "mimic-cxr-reports.zip (a file of MIMIC-CXR) in the source folder or next to it"
    )
    pattern = re.compile(r"(?:^|/)p\d\d/p(\d{8})/s(\d{8})/([^/]+)\.(?:dcm|dicom)$", re.IGNORECASE)

    def __init__(self, folder: Path, paths: Sequence[str], images: Sequence[str]) -> None:
        self.images = images
        self._reports = ReportFiles(folder, paths, _REPORT, _PACKED_REPORTS)
        self.reports: Sequence[str] = self._reports.paths
        tables = find_tables(paths)
        found = {name: folder / path for name, path in tables.items()}
        self.has_split = "split" in found
        self._split_of_image, self._split_of_patient = read_split(found.get("split"))
        self._metadata = read_metadata(found.get("metadata"))
        self._labels = found.get("chexpert") or found.get("negbio")
        dicom_ids = {match[3] for match in map(self.pattern.search, images) if match}
        study_ids = {study for _, study in self._reports.groups}
        self.missing: Mapping[str, int] = count_missing(folder, tables, dicom_ids, study_ids)

    def ids(self, path: str) -> Ids | None:
        """Return dicom_id, study_id and subject_id."""
        match = self.pattern.search(path)
        return Ids(match[3], match[2], match[1]) if match else None

    def listed(self, path: str) -> Listed:
        """Return view, date and time of the metadata table, and the official split."""
        match = self.pattern.search(path)
        if match is None:
            return Listed()
        patient, _, image = match.groups()
        view, date, time = self._metadata.get(image, (None, None, None))
        split = self._split_of_image.get(image) or self._split_of_patient.get(patient)
        return Listed(view, date, time, split)

    def match_reports(
        self,
        studies: Mapping[str, Sequence[str]],
        copies: Mapping[str, Sequence[str]],
        *,
        study_key: Callable[[str], str] | None = None,
    ) -> dict[str, str]:
        """Match by subject and study number."""
        matches = {}
        for study, images in studies.items():
            ids = self.ids(images[0])
            report = self._reports.path_of(ids.patient or "", ids.study or "") if ids else None
            if report is not None:
                matches[study] = report
        return matches

    def report_stamp(self, path: str) -> tuple[int, int]:
        """Return size and modification time, or size and CRC within the zip."""
        return self._reports.stamp(path)

    def read_report(self, path: str) -> ReportText:
        """Read a text file or a member of the zip."""
        return loose.decode(self._reports.read(path))

    def labels(self) -> Iterator[tuple[str, list[int | None]]]:
        """Yield study_id and labels of the chexpert table, else of the negbio table."""
        return read_labels(self._labels)
