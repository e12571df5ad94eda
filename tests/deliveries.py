"""Rearrange an archive in MIMIC-CXR's layout as hospitals deliver theirs.

    python tests/deliveries.py cd | vna | dated | sent SOURCE TARGET

cd      DICOMDIR, DICOM/PAT/STUDY/IMAGE without suffix, a viewer, README.TXT, and reports as
        texts named by accession number
vna     a flat folder of files named by UUIDs, one structured report per study among them
dated   year/month/accession/*.dcm, and reports.csv in Latin-1 with semicolons
sent    what a PACS sends, films/*.dcm, and a RIS writes, reports/ as texts named by accession
        number; these are others than of the first three, so that it may follow one of them
"""

from __future__ import annotations

import csv
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    BasicTextSRStorage,
    ExplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

README = "This disc holds images of a patient. Start VIEWER.EXE to look at them.\n"


@dataclass(frozen=True)
class Study:
    """One study of the source: its folder's name, its images, and its report if it has one."""

    number: int
    images: list[Path]
    report: str | None

    @property
    def accession(self) -> str:
        return f"ACC{self.number:06d}"


def studies(source: Path, first: int = 0) -> Iterator[Study]:
    """Yield the studies of an archive in MIMIC-CXR's layout, in order of path."""
    folders = sorted({path.parent for path in source.rglob("*.dcm")})
    for number, folder in enumerate(folders, start=first):
        text = folder.with_suffix(".txt")
        report = text.read_text("utf-8", "replace") if text.exists() else None
        yield Study(number, sorted(folder.glob("*.dcm")), report)


def write_image(image: Path, target: Path, accession: str) -> Dataset:
    """Copy a DICOM file and give it an accession number; return what was written."""
    dataset = dcmread(image)
    dataset.AccessionNumber = accession
    target.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(target)
    return dataset


def write_report(text: str, image: Dataset, target: Path) -> None:
    """Write a Basic Text SR (PS3.3 A.35.1) of the study of ``image``."""
    report = Dataset()
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    report.file_meta.MediaStorageSOPClassUID = report.SOPClassUID = BasicTextSRStorage
    uid = UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, str(image.StudyInstanceUID)).int}")
    report.file_meta.MediaStorageSOPInstanceUID = report.SOPInstanceUID = uid
    report.SpecificCharacterSet, report.Modality = "ISO_IR 192", "SR"
    for name in ("PatientID", "StudyInstanceUID", "AccessionNumber", "StudyDate", "StudyTime"):
        setattr(report, name, image.get(name, ""))
    report.ValueType, report.ContinuityOfContent = "CONTAINER", "SEPARATE"
    report.ConceptNameCodeSequence = [_code("18748-4", "LN", "Diagnostic imaging report")]
    report.CompletionFlag, report.VerificationFlag = "COMPLETE", "VERIFIED"
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", "TEXT"
    item.ConceptNameCodeSequence = [_code("121071", "DCM", "Finding")]
    item.TextValue = " ".join(text.split())
    report.ContentSequence = [item]
    report.save_as(target, enforce_file_format=True)


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def make_cd(source: Path, target: Path) -> None:
    """Write a patient CD of many patients."""
    target.mkdir(parents=True, exist_ok=True)
    for study in studies(source):
        for number, image in enumerate(study.images):
            place = f"DICOM/P{study.number:05d}/ST0/IM{number:06d}"
            write_image(image, target / place, study.accession)
        if study.report is not None:
            text = target / "REPORTS" / f"{study.accession}.TXT"
            text.parent.mkdir(exist_ok=True)
            text.write_text(study.report)
    (target / "README.TXT").write_text(README)
    (target / "AUTORUN.INF").write_text("[autorun]\nopen=VIEWER\\VIEWER.EXE\n")
    (target / "VIEWER").mkdir()
    (target / "VIEWER" / "VIEWER.EXE").write_bytes(b"MZ" + bytes(200))
    (target / "VIEWER" / "help.html").write_text("<html><body>Help</body></html>")
    _write_dicomdir(target / "DICOMDIR")


def _write_dicomdir(path: Path) -> None:
    directory = Dataset()
    directory.file_meta = FileMetaDataset()
    directory.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    directory.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    directory.file_meta.MediaStorageSOPInstanceUID = UID("2.25.1")
    directory.FileSetID = "DISC"
    directory.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity = 0
    directory.OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity = 0
    directory.FileSetConsistencyFlag = 0
    directory.DirectoryRecordSequence = []
    directory.save_as(path, enforce_file_format=True)


def make_vna(source: Path, target: Path) -> None:
    """Write the export of a vendor-neutral archive."""
    for study in studies(source):
        for image in study.images:
            name = str(uuid.uuid5(uuid.NAMESPACE_URL, image.name))
            written = write_image(image, target / name, study.accession)
        if study.report is not None:
            name = str(uuid.uuid5(uuid.NAMESPACE_URL, f"report {study.number}"))
            write_report(study.report, written, target / name)


def make_dated(source: Path, target: Path) -> None:
    """Write folders by date and accession number, and one table of all reports."""
    rows = []
    for study in studies(source):
        for number, image in enumerate(study.images):
            day = str(dcmread(image, stop_before_pixels=True).get("StudyDate") or "20000101")
            place = f"{day[:4]}/{day[4:6]}/{study.accession}/{number}.dcm"
            write_image(image, target / place, study.accession)
        if study.report is not None:
            rows.append((study.accession, f"{study.report}\n\nSigné: médecin"))
    with (target / "reports.csv").open("w", encoding="latin-1", errors="replace") as handle:
        writer = csv.writer(handle, delimiter=";")
        writer.writerows([("Accession Number", "Report"), *rows])


def make_sent(source: Path, target: Path) -> None:
    """Write the films of a PACS and the texts of a RIS, in two folders."""
    (target / "reports").mkdir(parents=True)
    for study in studies(source, first=500_000):
        for number, image in enumerate(study.images):
            write_image(image, target / f"films/{study.accession}-{number}.dcm", study.accession)
        if study.report is not None:
            (target / f"reports/{study.accession}.TXT").write_text(study.report)


MAKERS = {"cd": make_cd, "vna": make_vna, "dated": make_dated, "sent": make_sent}

if __name__ == "__main__":
    MAKERS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
