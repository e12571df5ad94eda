"""A studies table for the tests of the text room."""

from __future__ import annotations

import hashlib
import tarfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from lapvqa import schemas, storage
from lapvqa.project import Project

WriteStudies = Callable[..., Project]


@pytest.fixture
def write_studies(tmp_path: Path) -> WriteStudies:
    """Write studies.parquet from {study key: report}; split is by key or all train."""

    def write(reports: dict[str, str | None], splits: dict[str, str] | None = None) -> Project:
        project = Project(tmp_path)
        rows = [
            {
                "study_key": key,
                "patient_key": f"patient-{key}",
                "split": (splits or {}).get(key, "train"),
                "study_order": 0,
                "days_since_first": None,
                "study_date": None,
                "num_images": 1,
                "report": report,
                "report_sha256": None if report is None else _sha256(report),
                "identity_flags": [],
            }
            for key, report in reports.items()
        ]
        table = pa.Table.from_pylist(rows, schema=schemas.STUDIES)
        storage.write_table(project.studies, table, schemas.STUDIES)
        return project

    return write


def _sha256(report: str) -> str:
    return hashlib.sha256(report.encode("utf-8", "surrogatepass")).hexdigest()


@pytest.fixture(scope="session")
def openi(corpus: Path) -> dict[str, str]:
    """All 3,955 Open-i reports, written as MIMIC-CXR would; an empty section keeps its header."""
    reports = {}
    with tarfile.open(corpus / "openi" / "NLMCXR_reports.tgz") as members:
        for member in members:
            handle = members.extractfile(member)
            if handle is None or not member.name.endswith(".xml"):
                continue
            root = ElementTree.parse(handle).getroot()
            parts = {
                part.attrib["Label"]: (part.text or "").strip()
                for part in root.iter("AbstractText")
            }
            body = "".join(f" {name}:  {text}\n\n" for name, text in parts.items())
            reports[Path(member.name).stem] = " " * 33 + "FINAL REPORT\n" + body
    return reports
