"""A studies table for the tests of the text room."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from lapvqa import schemas, storage
from lapvqa.layout import Layout

WriteStudies = Callable[..., Layout]


@pytest.fixture
def write_studies(tmp_path: Path) -> WriteStudies:
    """Write studies.parquet from {study key: report}; split is by key or all train."""

    def write(reports: dict[str, str | None], splits: dict[str, str] | None = None) -> Layout:
        layout = Layout(tmp_path)
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
        storage.write_table(layout.studies, table, schemas.STUDIES)
        return layout

    return write


def _sha256(report: str) -> str:
    return hashlib.sha256(report.encode("utf-8", "surrogatepass")).hexdigest()
