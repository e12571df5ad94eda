"""FHIR R4 and R5: DiagnosticReport as a resource, in a Bundle, or one to a line (ndjson).

The text is presentedForm (text, HTML or RTF; there, or in a Binary of the same file), else the
conclusion, else a narrative that somebody wrote; a generated narrative is not read, for it names
the subject. The study is named by an identifier or an ImagingStudy (contained, in the Bundle, or by
its identifier), or by the accession number among the identifiers of the report and of what it is
based on. Subject and performers are never read.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from lapvqa.dicom.reasons import Reason, as_reason
from lapvqa.errors import DicomError
from lapvqa.ingest.archives.encodings import decode
from lapvqa.ingest.archives.headings import compose
from lapvqa.ingest.archives.markup import html_to_text, plain, require_text
from lapvqa.ingest.archives.messages import Found, Names, stamp_of_bytes
from lapvqa.ingest.archives.protocol import Refusal, ReportText, Withdrawn

Resource = Mapping[str, Any]

_BEGINS = re.compile(rb"[\s\xef\xbb\xbf]*\{[^\0]*\"resourceType\"\s*:\s*\"")
_FORMS = ("text/plain", "text/html", "application/xhtml+xml", "text/rtf", "application/rtf")
_STATUS = {
    "final": "final", "amended": "corrected", "corrected": "corrected", "appended": "corrected",
    "modified": "corrected", "preliminary": "preliminary", "partial": "preliminary",
    "registered": "preliminary",
}  # fmt: skip
_WITHDRAWN = frozenset({"entered-in-error", "cancelled"})
_UID = re.compile(r"(?:urn:oid:)?([0-9]+(?:\.[0-9]+)+)")


def is_fhir(beginning: bytes) -> bool:
    """Tell whether a file that begins so (a few kB) holds FHIR resources."""
    return _BEGINS.match(beginning) is not None


def read_resources(data: bytes) -> list[Found]:
    """Return each DiagnosticReport of a file in order; raises DicomError if it is no JSON."""
    text = decode(data).text
    with as_reason(Reason.BAD_REPORT, "FHIR resources in JSON"):
        return _found_in(text)


def _found_in(text: str) -> list[Found]:
    try:
        resources = [json.loads(text)]
    except ValueError:
        resources = [_line(line) for line in text.splitlines() if line.strip()]
        if not any(isinstance(resource, dict) for resource in resources):
            raise DicomError(Reason.BAD_REPORT, "expected whole JSON, found other text") from None
    found = []
    beside = {_reference(one): one for one in resources if isinstance(one, dict)}
    for resource in resources:
        if not isinstance(resource, dict):
            detail = "expected one resource in JSON on this line"
            refusal = Refusal(Reason.BAD_REPORT, detail)
            found.append(Found(Names(), None, (0, 0), refusal))
            continue
        others = {**beside, **_by_reference(resource)}
        found += [_found(report, others) for report in _reports(resource)]
    return found


def _line(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _entries(resource: Resource) -> Iterator[tuple[str, Resource]]:
    for entry in _list(resource, "entry"):
        inner = entry.get("resource")
        if isinstance(inner, dict):
            yield str(entry.get("fullUrl", "")), inner


def _reports(resource: Resource) -> Iterator[Resource]:
    if resource.get("resourceType") == "DiagnosticReport":
        yield resource
    for _, inner in _entries(resource):
        yield from _reports(inner)


def _by_reference(resource: Resource) -> dict[str, Resource]:
    found: dict[str, Resource] = {}
    for url, inner in _entries(resource):
        found[_reference(inner)] = inner
        found[url] = inner
    return found


def _reference(resource: Resource) -> str:
    return f"{resource.get('resourceType')}/{resource.get('id')}"


def _found(report: Resource, others: Mapping[str, Resource]) -> Found:
    forms = [_with_data(form, report, others) for form in _list(report, "presentedForm")]
    report = {**report, "presentedForm": forms}
    stamp = stamp_of_bytes(json.dumps(report, sort_keys=True).encode())
    names = _names(report, others)
    try:
        with as_reason(Reason.BAD_REPORT, "a DiagnosticReport"):
            return Found(names, _text(report), stamp)
    except DicomError as error:
        return Found(names, None, stamp, Refusal.of(error))


def _with_data(form: Resource, report: Resource, others: Mapping[str, Resource]) -> Resource:
    """Return an attachment with the data of the Binary that its url refers to, if it is here."""
    url = str(form.get("url", ""))
    if form.get("data") or not url:
        return form
    known = {**others, **{f"#{inner.get('id')}": inner for inner in _list(report, "contained")}}
    relative = "/".join(url.partition("/_history/")[0].split("/")[-2:])
    binary = known.get(url) or known.get(relative) or {}
    if binary.get("resourceType") != "Binary":
        return form
    kind = form.get("contentType") or binary.get("contentType")
    return {**form, "contentType": kind, "data": binary.get("data")}


def _names(report: Resource, others: Mapping[str, Resource]) -> Names:
    contained = {f"#{inner.get('id')}": inner for inner in _list(report, "contained")}
    known = {**others, **contained}
    identifiers = [*_list(report, "identifier")]
    for key in ("imagingStudy", "study", "basedOn"):
        for reference in _list(report, key):
            if isinstance(reference.get("identifier"), dict):
                identifiers.append(reference["identifier"])
            target = known.get(str(reference.get("reference", "")))
            identifiers += _list(target, "identifier") if target else []
    values = [(i, str(i.get("value", "")).strip()) for i in identifiers]
    is_uid = [
        _UID.fullmatch(value) if "." in value and _may_be_uid(identifier, value) else None
        for identifier, value in values
    ]
    return Names(
        study_uids=tuple(dict.fromkeys(match[1] for match in is_uid if match)),
        accessions=tuple(
            dict.fromkeys(
                value
                for (_, value), uid in zip(values, is_uid, strict=True)
                if value and uid is None
            )
        ),
    )


def _may_be_uid(identifier: Resource, value: str) -> bool:
    return value.startswith("urn:oid:") or identifier.get("system") in ("urn:dicom:uid", None)


def _text(report: Resource) -> ReportText:
    stated = str(report.get("status", ""))
    if stated in _WITHDRAWN:
        raise Withdrawn(f"its status is {stated}", _written(report))
    forms = _list(report, "presentedForm")
    text, form, encoding = _presented(forms)
    if not text and report.get("conclusion"):
        text = compose([("IMPRESSION", str(report["conclusion"]))])
    narrative = report.get("text")
    if not text and isinstance(narrative, dict) and narrative.get("status") != "generated":
        text = html_to_text(str(narrative.get("div", "")))
    if not any(char.isalnum() for char in text):
        raise _without_text(forms)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return ReportText(text, digest, encoding, form, _STATUS.get(stated, ""), _written(report))


def _without_text(forms: Sequence[Resource]) -> DicomError:
    """Return why a report has no text: it lies elsewhere, is a document, or there is none."""
    if any(form.get("url") and not form.get("data") for form in forms):
        found = "the text in the report or in a Binary of the same file, found an address of it"
        return DicomError(Reason.REPORT_FORMAT, f"expected {found}")
    if any(form.get("data") for form in forms):
        return DicomError(
            Reason.REPORT_FORMAT, "expected presentedForm as text, RTF or HTML, found others"
        )
    return DicomError(
        Reason.NOT_A_REPORT, "expected presentedForm as text, or a conclusion, found neither"
    )


def _presented(attachments: Sequence[Resource]) -> tuple[str, str, str]:
    """Return text, format and encoding of the best attachment that holds its data."""
    usable = [
        (_FORMS.index(kind), attachment)
        for attachment in attachments
        if attachment.get("data")
        and (kind := str(attachment.get("contentType", "")).split(";")[0].strip().lower()) in _FORMS
    ]
    if not usable:
        return "", "fhir", "utf-8"
    _, best = min(usable, key=lambda pair: pair[0])
    try:
        content = base64.b64decode("".join(str(best["data"]).split()), validate=True)
    except (binascii.Error, ValueError):
        raise DicomError(Reason.BAD_REPORT, "expected base64 in presentedForm") from None
    require_text(content)
    decoded = decode(content)
    text, form = plain(decoded.text)
    return text, "fhir" if form == "text" else form, decoded.encoding


def _written(report: Resource) -> str:
    for key in ("issued", "effectiveDateTime"):
        stated = str(report.get(key, ""))
        try:
            time = datetime.fromisoformat(stated)
            if time.tzinfo is not None:
                time = time.astimezone(UTC)
        except (ValueError, OverflowError):
            continue
        return time.strftime("%Y%m%d%H%M%S")
    return ""


def _list(resource: Resource, key: str) -> list[Resource]:
    value = resource.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
