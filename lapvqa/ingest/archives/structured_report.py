"""DICOM SR with a radiology report (PS3.3 A.35, PS3.16 TID 2000): its tree to a text by section.

Containers named as sections become headings. TEXT, CODE, NUM and DATE items stand in order; names
of persons, references and the context of observation (who looked, at whom: relationship HAS OBS
CONTEXT) are left out, and so are modifiers and acquisition context. Dose reports, CAD, measurements
and key objects are SR too, and no reports.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from io import BytesIO

from pydicom import Dataset, dcmread

from lapvqa.dicom.header import clean_date, clean_time
from lapvqa.dicom.reasons import Reason, as_reason, quiet
from lapvqa.errors import DicomError
from lapvqa.ingest.archives.headings import Part, compose, heading_of
from lapvqa.ingest.archives.protocol import ReportText

# Basic Text, Enhanced, Comprehensive, Comprehensive 3D, Extensible SR.
SOP_CLASSES = frozenset(f"1.2.840.10008.5.1.4.1.1.88.{kind}" for kind in (11, 22, 33, 34, 35))
# Titles of documents that are no reports: CAD, key objects, dose, procedure logs, measurements.
_OTHER_TITLES = frozenset(
    {
        "111036", "112000", "111064", "113000", "113701", "113702", "113500", "113921", "121058",
        "121144", "126000", "125000", "125100", "125200", "125300",
    }
)  # fmt: skip
# TID 1500 measurements, 10011 dose, 2010 key objects, 4xxx CAD, 5xxx ultrasound and vessels.
_OTHER_TEMPLATES = ("10", "15", "2010", "4", "5")
_FOLLOWED = frozenset({"", "CONTAINS", "HAS PROPERTIES", "INFERRED FROM"})
_MAX_DEPTH = 32


def read_structured_report(data: bytes) -> ReportText:
    """Return the text of a file with DICOM SR; raises DicomError.

    The reason is NOT_A_REPORT for another kind of document.
    """
    with quiet(), as_reason(Reason.BAD_REPORT, "a readable structured report"):
        dataset = dcmread(BytesIO(data))
        dataset.decode()
        _require_report(dataset)
        text = compose(list(_parts(dataset, "", 0)))
        written = clean_date(str(dataset.get("ContentDate") or ""))
        if written:
            written += clean_time(str(dataset.get("ContentTime") or ""))[:6]
        status = _status(dataset)
    if not any(char.isalnum() for char in text):
        raise DicomError(Reason.NOT_A_REPORT, "expected text in a structured report, found none")
    if "\ufffd" in text:
        raise DicomError(Reason.REPORT_ENCODING, "expected its Specific Character Set")
    sha256 = hashlib.sha256(data).hexdigest()
    return ReportText(text, sha256, "dicom", "structured_report", status, written)


def _require_report(dataset: Dataset) -> None:
    title, _ = _concept(dataset)
    templates = [
        str(item.get("TemplateIdentifier") or "")
        for item in dataset.get("ContentTemplateSequence") or []
    ]
    is_other = any(len(name) >= 4 and name.startswith(_OTHER_TEMPLATES) for name in templates)
    if str(dataset.get("SOPClassUID")) not in SOP_CLASSES or title in _OTHER_TITLES or is_other:
        raise DicomError(
            Reason.NOT_A_REPORT, "expected a radiology report, found another structured report"
        )


def _parts(node: Dataset, heading: str, depth: int) -> Iterator[Part]:
    """Yield heading and text of the items below a container, in order."""
    if depth > _MAX_DEPTH:
        raise DicomError(Reason.BAD_REPORT, f"expected at most {_MAX_DEPTH} levels of content")
    separator = " " if str(node.get("ContinuityOfContent") or "") == "CONTINUOUS" else "\n"
    run: list[str] = []  # texts under one heading, not yet yielded
    run_heading = heading
    for item in _followed(node):
        code, meaning = _concept(item)
        kind = str(item.get("ValueType") or "").strip()
        own = heading_of(meaning, code) or heading
        if kind == "CONTAINER":
            own = heading_of(meaning, code) or _as_heading(meaning) or heading
        if own != run_heading:
            yield run_heading, separator.join(run)
            run, run_heading = [], own
        text = "" if kind == "CONTAINER" else _value(item, kind, meaning)
        run += [text] if text else []
        if _followed(item):
            yield run_heading, separator.join(run)
            run = []
            yield from _parts(item, own, depth + 1)
    yield run_heading, separator.join(run)


def _followed(node: Dataset) -> list[Dataset]:
    return [
        item
        for item in node.get("ContentSequence") or []
        if str(item.get("RelationshipType") or "").strip() in _FOLLOWED
    ]


def _value(item: Dataset, kind: str, meaning: str) -> str:
    if kind == "TEXT":
        return str(item.get("TextValue") or "").replace("\r\n", "\n").replace("\r", "\n")
    value = ""
    if kind == "CODE":
        value = _meaning(item, "ConceptCodeSequence")
    elif kind == "NUM":
        for measured in item.get("MeasuredValueSequence") or []:
            unit = measured.get("MeasurementUnitsCodeSequence") or []
            name = str(unit[0].get("CodeValue") or "") if unit else ""
            number = measured.get("NumericValue")
            value = f"{'' if number is None else number} {'' if name == '1' else name}".strip()
    elif kind == "DATE":
        value = clean_date(str(item.get("Date") or ""))
    if not value:
        return ""
    # A finding under Findings needs no name: "Finding: Pneumonia" says no more than "Pneumonia".
    return value if not meaning or heading_of(meaning) else f"{meaning}: {value}"


def _concept(item: Dataset) -> tuple[str, str]:
    names = item.get("ConceptNameCodeSequence") or []
    if not names:
        return "", ""
    return str(names[0].get("CodeValue") or ""), str(names[0].get("CodeMeaning") or "").strip()


def _meaning(item: Dataset, name: str) -> str:
    codes = item.get(name) or []
    return str(codes[0].get("CodeMeaning") or "").strip() if codes else ""


def _as_heading(meaning: str) -> str:
    """Return a name that no list knows as a heading, if it can be one: capitals and signs."""
    name = " ".join(meaning.upper().split())
    return name if name and all("A" <= char <= "Z" or char in " ()/,-" for char in name) else ""


def _status(dataset: Dataset) -> str:
    """Return the status by Completion (0040,A491) and Preliminary Flag (0040,A496)."""
    completion = str(dataset.get("CompletionFlag") or "")
    if str(dataset.get("PreliminaryFlag") or "") == "PRELIMINARY" or completion == "PARTIAL":
        return "preliminary"
    if dataset.get("PredecessorDocumentsSequence"):
        return "corrected"
    return "final" if completion == "COMPLETE" else ""
