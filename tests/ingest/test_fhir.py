"""FHIR DiagnosticReport: examples by R4 and R5, alone, in a Bundle and as ndjson."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from lapvqa.dicom.reasons import Reason
from lapvqa.errors import DicomError
from lapvqa.ingest.archives.fhir import is_fhir, read_resources


def report(**fields: Any) -> dict[str, Any]:
    return {
        "resourceType": "DiagnosticReport", "id": "r1", "status": "final",
        "identifier": [{"type": {"coding": [{"code": "ACSN"}]}, "value": "A100"}],
        "subject": {"display": "Jane Doe", "reference": "Patient/1"},
        "issued": "2024-01-02T10:15:00+01:00", **fields,
    }  # fmt: skip


def form(kind: str, text: str | bytes) -> dict[str, str]:
    data = text.encode() if isinstance(text, str) else text
    return {"contentType": kind, "data": base64.b64encode(data).decode()}


def text_of(resource: Any) -> str:
    (found,) = read_resources(json.dumps(resource).encode())
    assert found.text is not None, found.refusal
    return found.text.text


def test_presented_forms_and_conclusion() -> None:
    plain, page = form("text/plain; charset=utf-8", "Clear."), form("text/html", "<p>Other</p>")
    assert text_of(report(presentedForm=[page, plain], conclusion="No")) == "Clear."
    assert text_of(report(presentedForm=[page])) == "Other"
    assert text_of(report(presentedForm=[form("application/rtf", "{\\rtf1 Text}")])) == "Text"
    assert text_of(report(presentedForm=[form("text/plain", "Größe".encode("cp1252"))])) == "Größe"
    pdf = form("application/pdf", "%PDF")
    assert text_of(report(presentedForm=[pdf], conclusion="Normal.")) == "\n IMPRESSION: Normal."
    div = "<div>Heart normal.</div>"
    assert text_of(report(text={"status": "additional", "div": div})) == "Heart normal."
    (found,) = read_resources(json.dumps(report(text={"status": "generated", "div": div})).encode())
    assert found.text is None
    assert found.refusal is not None
    assert found.refusal.reason == "not_a_report"


def test_names_status_and_date_and_nobody() -> None:
    resource = report(
        status="amended",
        conclusion="x",
        contained=[{"resourceType": "ImagingStudy", "id": "s", "identifier": [
            {"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}]}],
        imagingStudy=[{"reference": "#s"}],
        basedOn=[{"identifier": {"value": "O77"}}],
    )  # fmt: skip
    (found,) = read_resources(json.dumps(resource).encode())
    assert found.names.study_uids == ("1.2.3",)
    assert found.names.accessions == ("A100", "O77")
    assert found.text is not None
    assert (found.text.status, found.text.written) == ("corrected", "20240102091500")
    assert "Doe" not in repr(found)


def test_a_bundle_with_its_studies_r5() -> None:
    study = {"resourceType": "ImagingStudy", "id": "s1", "identifier": [{"value": "urn:oid:1.2.9"}]}
    bundle = {
        "resourceType": "Bundle",
        "entry": [
            {"fullUrl": "urn:uuid:1", "resource": study},
            {"resource": report(study=[{"reference": "urn:uuid:1"}], conclusion="one")},
            {"resource": report(study=[{"reference": "ImagingStudy/s1"}], conclusion="two")},
            {"resource": {"resourceType": "Patient", "name": [{"text": "Doe"}]}},
        ],
    }
    data = json.dumps(bundle).encode()
    assert is_fhir(data)
    found = read_resources(data)
    assert [f.names.study_uids for f in found] == [("1.2.9",)] * 2


def binary(text: str, **fields: Any) -> dict[str, Any]:
    return {"resourceType": "Binary", "id": "b1", **form("text/plain", text), **fields}


@pytest.mark.parametrize(
    "url",
    ["Binary/b1", "https://ehr/fhir/Binary/b1", "Binary/b1/_history/2", "urn:uuid:7", "#b1"],
)
def test_a_presented_form_in_a_binary_of_the_same_file(url: str) -> None:
    one = report(presentedForm=[{"contentType": "text/plain", "url": url}])
    if url == "#b1":
        assert text_of({**one, "contained": [binary("Held.")]}) == "Held."
        return
    entries = [{"resource": one}, {"fullUrl": "urn:uuid:7", "resource": binary("Held.")}]
    bundle = {"resourceType": "Bundle", "entry": entries}
    assert text_of(bundle) == "Held."
    stamps = [
        read_resources(json.dumps({**bundle, "entry": [entries[0], other]}).encode())[0].stamp
        for other in ({"resource": binary("One")}, entries[1], {"resource": binary("Two")})
    ]
    assert len(set(stamps)) == (1 if url.startswith("urn") else 2) + 1
    if not url.startswith("urn"):
        lines = "\n".join(map(json.dumps, [one, binary("Held.", contentType=None)]))
        (found,) = read_resources(lines.encode())
        assert found.text is not None
        assert found.text.text == "Held."


def test_a_binary_that_is_not_here_or_of_another_kind_is_a_reject_that_says_so() -> None:
    one = report(presentedForm=[{"url": "Binary/b1"}])
    elsewhere, others = "found an address of it", "found others"
    for other, why in (
        ({}, elsewhere), (binary("x", id="b2"), elsewhere),
        ({"resourceType": "Patient", "id": "b1"}, elsewhere),
        (binary("%PDF", contentType="application/pdf"), others),
    ):  # fmt: skip
        bundle = {"resourceType": "Bundle", "entry": [{"resource": one}, {"resource": other}]}
        (found,) = read_resources(json.dumps(bundle).encode())
        assert found.text is None
        assert found.refusal is not None
        assert found.refusal.reason == Reason.REPORT_FORMAT
        assert found.refusal.detail.endswith(why)
    (empty,) = read_resources(json.dumps(report()).encode())
    assert empty.refusal is not None
    assert empty.refusal.reason == Reason.NOT_A_REPORT
    concluded = report(presentedForm=[{"url": "Binary/b1"}], conclusion="No effusion.")
    (taken,) = read_resources(json.dumps(concluded).encode())
    assert taken.text is not None


def test_ndjson_has_a_report_or_a_reason_for_each_line() -> None:
    lines = [
        json.dumps(report(conclusion="one")), "{broken", json.dumps({"resourceType": "Patient"}),
        json.dumps(report(conclusion="two", status="entered-in-error")), "",
        json.dumps(report(presentedForm=[{"contentType": "text/plain", "data": "*"}])),
    ]  # fmt: skip
    found = read_resources("\n".join(lines).encode())
    assert [f.refusal.reason if f.refusal else "" for f in found] == [
        "", "bad_report", "report_withdrawn", "bad_report",
    ]  # fmt: skip


def test_other_json_is_none_of_it() -> None:
    assert not is_fhir(b'{"a": 1}')
    assert not is_fhir(b"[1, 2]")
    with pytest.raises(DicomError) as caught:
        read_resources(b"{broken")
    assert caught.value.reason == "bad_report"
