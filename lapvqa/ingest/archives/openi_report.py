"""A report of Open-i: XML with the sections as ``AbstractText``, to text as MIMIC-CXR writes it.

Every report has COMPARISON, INDICATION, FINDINGS and IMPRESSION, each possibly empty. What was
removed to hide identities is XXXX, and stays.
"""

from __future__ import annotations

import hashlib
from xml.etree.ElementTree import XMLParser

from lapvqa.dicom.reasons import Reason, as_reason
from lapvqa.errors import DicomError
from lapvqa.ingest.archives.contract import ReportText


def read_openi(data: bytes, report_id: str) -> ReportText:
    """Return the sections as lines `` FINDINGS: ...``, in their order.

    Raises DicomError BAD_REPORT if the XML is broken, or is not the report ``report_id`` (CXR1).
    """
    sections = _Sections()
    with as_reason(Reason.BAD_REPORT, "whole XML without document type"):
        parser = XMLParser(target=sections)
        parser.feed(data)
        parser.close()
    if sections.report_id != report_id or not sections.found:
        raise DicomError(
            Reason.BAD_REPORT, "expected the uId that its file is named by, and AbstractText"
        )
    # White space is collapsed, so that no line of a section can look like a header.
    lines = [f"\n {label}: {' '.join(text.split())}" for label, text in sections.found]
    return ReportText("".join(lines), hashlib.sha256(data).hexdigest())


class _Sections:
    """Takes what the parser meets; nothing is built of the rest of the document."""

    def __init__(self) -> None:
        self.report_id = ""
        self.found: list[tuple[str, str]] = []
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
            self.found.append((self._label, "".join(self._text)))
            self._text = None

    def doctype(self, name: str, public: str, system: str) -> None:
        """Refuse what could declare entities: some grow without bound, some read other files."""
        raise ValueError("a document type")

    def close(self) -> None:
        """Nothing is left to do."""
