"""Canaries planted in every corner of an archive, and the search for them."""

from __future__ import annotations

import gzip
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as parquet
from pydicom import Dataset, dcmread

CANARY = "Kanarienvogel"
UID = "1.2.999.424242"
REPORT = f"FINAL REPORT\n FINDINGS: Seen by Dr. {CANARY} on 12/31/2010. Lungs are clear.\n"
NAMES = (
    "PatientName", "OtherPatientIDs", "PatientAddress", "PatientTelephoneNumbers",
    "InstitutionName", "ReferringPhysicianName", "OperatorsName", "StudyID", "AccessionNumber",
    "StudyDescription", "SeriesDescription", "ImageComments", "DeviceSerialNumber", "StationName",
    "ProtocolName", "PatientComments", "RequestedProcedureDescription",
)  # fmt: skip
FREE_TEXT_IN_READ_TAGS = (
    "ViewPosition", "BodyPartExamined", "PatientID", "PatientOrientation",
    "AcquisitionDeviceProcessingDescription", "PerformedProcedureStepDescription",
)  # fmt: skip


SETTINGS = {"ingest": {"deid": {"reports": "reject", "dates": "shift"}, "body_part": "any"}}
"""Reports that name somebody are rejected, and a strange body part is none."""


def populate(archive: Path) -> None:
    """Plant canaries in one study that is taken, one that is cut, and one report."""
    studies = sorted(path.parent for path in archive.rglob("*.dcm"))
    taken, cut, named = studies[0], studies[-1], studies[len(studies) // 2]
    for study in {taken, cut}:
        for path in study.glob("*.dcm"):
            plant(path)
    victim = next(cut.glob("*.dcm"))
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    named.with_suffix(".txt").write_text(REPORT)


def plant(path: Path) -> None:
    """Write canaries into header, sequence, private tags, overlay and UIDs of a DICOM file."""
    dataset = dcmread(path)
    for name in (*NAMES, *FREE_TEXT_IN_READ_TAGS):
        setattr(dataset, name, CANARY[:16])
    dataset.StudyInstanceUID = dataset.SOPInstanceUID = UID
    dataset.file_meta.MediaStorageSOPInstanceUID = UID
    item = Dataset()
    item.ReferencedSOPInstanceUID, item.PatientName = UID, CANARY
    dataset.ReferencedImageSequence = [item]
    block = dataset.private_block(0x0099, "LAPVQA CANARY", create=True)
    block.add_new(1, "LO", CANARY)
    block.add_new(2, "OB", CANARY.encode() * 2)
    dataset.add_new(0x60000010, "US", 8)
    dataset.add_new(0x60000011, "US", 8)
    dataset.add_new(0x60000022, "LO", CANARY)
    dataset.add_new(0x60003000, "OW", CANARY.encode() + b"\0" * (len(CANARY) % 2))
    dataset.save_as(path, enforce_file_format=True)


def contents(path: Path) -> Iterator[bytes]:
    """What a file holds, whatever its packing."""
    data = path.read_bytes()
    yield data
    if path.suffix == ".parquet":
        table = parquet.read_table(path)
        yield (str(table.to_pydict()) + str(table.schema.metadata)).encode()
    elif data[:2] == b"\x1f\x8b":
        yield gzip.decompress(data)
    elif data[:16] == b"SQLite format 3\0":
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            yield "\n".join(database.iterdump()).encode()
    elif data[:1] == b"x":
        try:
            yield zlib.decompress(data)
        except zlib.error:
            return


def holding(folder: Path, *canaries: str) -> set[str]:
    """Files under ``folder`` that hold a canary, but the archive and the code."""
    found = set()
    for path in folder.rglob("*"):
        inside = path.relative_to(folder)
        if not path.is_file() or inside.parts[0] in {"demo", ".git", "tests"}:
            continue
        wanted = [canary.encode() for canary in canaries]
        if any(one in content for content in contents(path) for one in wanted):
            found.add(str(inside))
    return found
