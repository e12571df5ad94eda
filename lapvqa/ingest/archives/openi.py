"""Open-i's Indiana University collection: NLMCXR_png or NLMCXR_dcm, and ecgen-radiology/N.xml.

Reports may stay in NLMCXR_reports.tgz; images have to be unpacked. Report, study and patient are
one: the collection names no patients, so two studies of one person cannot be told from those of
two, and may come into different splits. Views and dates are in DICOM headers only.

Images are CXR1_1_IM-0001-3001.png or CXR10_IM-0002-1001.png (as ``parentImage`` names them),
1/1_IM-0001-3001.dcm in the DICOM files, and 1_IM-0001-3001.dcm.png in copies made of those.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from xml.etree.ElementTree import XMLParser

import pyarrow as pa

from lapvqa.dicom.reasons import Reason, as_reason
from lapvqa.errors import DicomError
from lapvqa.identity import Ids
from lapvqa.ingest.archives.protocol import (
    NO_LABELS,
    KnownStudies,
    Matches,
    ReportText,
    nothing_listed,
)
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
        r"(?:^|/)(?:CXR)?(\d+)(?:_\1)?_(IM-[\d-]+)(?:\.dcm)?\.(?:(?:dcm|dicom)(?:\.gz)?|png|jpg|jpeg)$",
        re.IGNORECASE,
    )
    has_split = False
    missing: Mapping[str, int] = MappingProxyType({})

    def __init__(self, folder: Path, paths: Sequence[str], images: Sequence[str]) -> None:
        self.images = images
        self._reports = ReportFiles(folder, paths, _REPORT, _PACKED_REPORTS)
        self.reports: Sequence[str] = self._reports.paths
        self.tables: Sequence[str] = self._reports.packed

    def ids(self, path: str) -> Ids | None:
        """Return the image's name, and the report's id (CXR1) for study and patient."""
        match = self.pattern.search(path)
        if match is None:
            return None
        report = f"CXR{match[1]}"
        return Ids(f"{report}_{match[2]}", report, report)

    def listed(self, ids: pa.Table) -> pa.Table:
        """Return nothing: the XML says nothing about a single image."""
        return nothing_listed(ids)

    def match_reports(self, known: KnownStudies) -> Matches:
        """Match by the number in the names."""
        reports = {}
        for study, path in known.first_images.items():
            image = self.pattern.search(path)
            report = self._reports.path_of(image[1]) if image else None
            if report is not None:
                reports[study] = report
        return Matches.by_name(reports, "number of the report")

    def report_stamp(self, path: str) -> tuple[int, int]:
        """Return size and modification time, or size and CRC within the tgz."""
        return self._reports.stamp(path)

    def read_report(self, path: str) -> ReportText:
        """Read one XML and write its sections as MIMIC-CXR writes them."""
        match = _REPORT.search(path)
        return read_openi(self._reports.read(path), f"CXR{match[1]}" if match else "")

    def labels(self) -> pa.Table:
        """Return no labels: the collection has MeSH terms only."""
        return NO_LABELS


def read_openi(data: bytes, report_id: str) -> ReportText:
    """Return the sections as lines `` FINDINGS: ...``, in their order, as MIMIC-CXR writes them.

    Every report has COMPARISON, INDICATION, FINDINGS and IMPRESSION as ``AbstractText``, each
    possibly empty. What was removed to hide identities is XXXX, and stays. Raises DicomError
    BAD_REPORT if the XML is broken, or is not the report ``report_id`` (CXR1).
    """
    sections = _Sections()
    with as_reason(Reason.BAD_REPORT, "whole XML without document type"):
        parser = XMLParser(target=sections)
        parser.feed(data)
        parser.close()
    if sections.report_id != report_id or not sections.texts:
        raise DicomError(
            Reason.BAD_REPORT, "expected the uId that its file is named by, and AbstractText"
        )
    # White space is collapsed, so that no line of a section can look like a header.
    lines = [f"\n {label}: {' '.join(text.split())}" for label, text in sections.texts]
    return ReportText("".join(lines), hashlib.sha256(data).hexdigest())


class _Sections:
    """Target of the XML parser that keeps the sections and builds no document."""

    def __init__(self) -> None:
        self.report_id = ""
        self.texts: list[tuple[str, str]] = []
        self._text: list[str] | None = None
        self._label = ""

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Note the report's id, or that a section begins."""
        if tag == "uId":
            self.report_id = attributes.get("id", "")
        elif tag == "AbstractText":
            self._label, self._text = attributes.get("Label", "").upper(), []

    def data(self, text: str) -> None:
        """Take text that stands in a section."""
        if self._text is not None:
            self._text.append(text)

    def end(self, tag: str) -> None:
        """Note that a section ends."""
        if tag == "AbstractText" and self._text is not None:
            self.texts.append((self._label, "".join(self._text)))
            self._text = None

    def doctype(self, name: str, public: str, system: str) -> None:
        """Refuse what could declare entities: some grow without bound, some read other files."""
        raise ValueError("a document type")

    def close(self) -> None:
        """Do nothing: the parser asks for it."""
