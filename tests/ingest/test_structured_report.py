"""DICOM SR to text, beside dcmtk's dsr2xml on the same files."""

from __future__ import annotations

import subprocess
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import pytest
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    BasicTextSRStorage,
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
    XRayRadiationDoseSRStorage,
)

from lapvqa.errors import DicomError
from lapvqa.ingest.archives.structured_report import read_structured_report


def code(value: str, meaning: str, scheme: str = "DCM") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def item(
    kind: str, name: Dataset | None, *, relation: str = "CONTAINS", **values: object
) -> Dataset:
    made = Dataset()
    made.RelationshipType, made.ValueType = relation, kind
    if name is not None:
        made.ConceptNameCodeSequence = [name]
    for key, value in values.items():
        setattr(made, key, value)
    return made


def container(name: Dataset, *content: Dataset, **values: object) -> Dataset:
    values |= {"ContentSequence": list(content), "ContinuityOfContent": "SEPARATE"}
    return item("CONTAINER", name, **values)


FINDINGS, IMPRESSION = code("121070", "Findings"), code("121072", "Impressions")
FINDING, CONCLUSION = code("121071", "Finding"), code("121077", "Conclusion")


def document(
    *content: Dataset, sop_class: str = BasicTextSRStorage,
    title: Dataset | None = None, study: str = "1.2.1", number: int = 1, **values: object,
) -> bytes:  # fmt: skip
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, f"1.2.9.{number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, f"1.2.8.{number}"
    dataset.PatientID, dataset.PatientName, dataset.Modality = "P1", "Doe^Jane", "SR"
    dataset.InstanceNumber, dataset.StudyDate, dataset.AccessionNumber = 1, "20240102", "A1"
    dataset.StudyTime, dataset.StudyID, dataset.ReferringPhysicianName = "101500", "1", ""
    dataset.PatientBirthDate, dataset.PatientSex, dataset.SeriesNumber = "", "", 1
    dataset.Manufacturer, dataset.ReferencedPerformedProcedureStepSequence = "", []
    dataset.ContentDate, dataset.ContentTime = "20240102", "101500"
    dataset.CompletionFlag, dataset.VerificationFlag = "COMPLETE", "UNVERIFIED"
    dataset.PerformedProcedureCodeSequence = []
    dataset.ValueType, dataset.ContinuityOfContent = "CONTAINER", "SEPARATE"
    dataset.ConceptNameCodeSequence = [title or code("18748-4", "Diagnostic Imaging Report", "LN")]
    dataset.ContentSequence = list(content)
    for key, value in values.items():
        setattr(dataset, key, value)
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def whole_report(**values: object) -> bytes:
    """As TID 2000 asks: observer, history, findings with a measurement, impression."""
    name = code("121008", "Person Observer Name")
    observer = item("PNAME", name, relation="HAS OBS CONTEXT", PersonName="House^Greg")
    history = code("121060", "History")
    cm = code("cm", "centimeter", "UCUM")
    measured = Dataset()
    measured.MeasurementUnitsCodeSequence, measured.NumericValue = [cm], "3.5"
    return document(
        observer,
        container(history, item("TEXT", history, TextValue="Cough.")),
        container(
            FINDINGS,
            item("TEXT", FINDING, TextValue="Herz nicht vergrößert,\r\nLunge frei."),
            item("NUM", code("M-02550", "Diameter", "SRT"), MeasuredValueSequence=[measured]),
            item("CODE", FINDING, ConceptCodeSequence=[code("R-1", "Pneumonia", "SRT")]),
        ),
        container(IMPRESSION, item("TEXT", CONCLUSION, TextValue="No change.")),
        sop_class=ComprehensiveSRStorage, **values,
    )  # fmt: skip


def test_a_report_by_sections() -> None:
    found = read_structured_report(whole_report())
    assert found.text == (
        "\n HISTORY: Cough."
        "\n FINDINGS: Herz nicht vergrößert, Lunge frei. Diameter: 3.5 cm Pneumonia"
        "\n IMPRESSION: No change."
    )
    assert (found.status, found.written) == ("final", "20240102101500")
    for name in ("House", "Greg", "Doe", "Jane"):
        assert name not in found.text


def _texts_by_dcmtk(path: Path) -> list[str]:
    """The text items, in order, that dcmtk finds outside of the context of observation."""
    done = subprocess.run(["dsr2xml", str(path)], capture_output=True, check=True)
    root = ElementTree.fromstring(done.stdout)
    return [value.text or "" for value in root.findall(".//document/content//text/value")]


@pytest.mark.parametrize("made", ["sample", "made"])
def test_texts_are_those_that_dcmtk_finds_in_their_order(tmp_path: Path, made: str) -> None:
    sample = Path(str(get_testdata_file("test-SR.dcm")))
    path = sample if made == "sample" else tmp_path / "made.dcm"
    if made == "made":
        path.write_bytes(whole_report())
    ours = " ".join(read_structured_report(path.read_bytes()).text.split())
    place = 0
    theirs = [text for text in _texts_by_dcmtk(path) if text != "Sample Text 2"]  # a modifier
    assert len(theirs) >= 3
    for text in theirs:
        place = ours.index(" ".join(text.split()), place) + 1


@pytest.mark.parametrize(
    "data",
    [
        document(item("TEXT", FINDING, TextValue="x"), sop_class=XRayRadiationDoseSRStorage),
        document(item("TEXT", FINDING, TextValue="x"), title=code("113701", "Dose Report")),
        document(item("TEXT", FINDING, TextValue="x"), title=code("113000", "Of Interest")),
        document(container(FINDINGS)),
    ],
)
def test_other_documents_are_no_reports(data: bytes) -> None:
    with pytest.raises(DicomError) as caught:
        read_structured_report(data)
    assert caught.value.reason == "not_a_report"


def test_preliminary_and_amended_documents_say_so() -> None:
    text = item("TEXT", FINDING, TextValue="x")
    assert read_structured_report(document(text, CompletionFlag="PARTIAL")).status == "preliminary"
    assert (
        read_structured_report(document(text, PreliminaryFlag="PRELIMINARY")).status
        == "preliminary"
    )
    before = Dataset()
    before.StudyInstanceUID = "1.2.1"
    amended = document(text, PredecessorDocumentsSequence=[before])
    assert read_structured_report(amended).status == "corrected"


def test_a_damaged_document_is_a_bad_report() -> None:
    for data in (b"", whole_report()[:600], bytes(128) + b"DICM\2\0\0\0UL\4\0"):
        with pytest.raises(DicomError) as caught:
            read_structured_report(data)
        assert caught.value.reason in ("bad_report", "not_a_report")
