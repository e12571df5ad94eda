"""A folder that others write into: studies and reports, each once, however they are called."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from intake_parts import Desk, film, open_desk

from lapvqa.intake.watch import Watcher
from lapvqa.lineage import ledger
from lapvqa.machine import ReportSources

NAME = "RIS"


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[Desk, Path]]:
    folder = tmp_path / "drop"
    folder.mkdir()
    with open_desk(tmp_path, f"watch-{NAME}") as desk:
        yield desk, folder


def _look(desk: Desk, folder: Path, **options: Any) -> list[str]:
    """Take what is there; return the new events' kinds."""
    before = len(desk.events)
    watcher = Watcher(folder, NAME, desk.filing, ReportSources(), settled=0.0, **options)
    watcher.look()
    desk.filing.settle()
    return [event["event"] for event in desk.events[before:]]


def oru(
    text: str, *, accession: str = "A100", time: str = "202611291015", status: str = "F"
) -> str:
    return (
        f"MSH|^~\\&|RIS|H|||{time}||ORU^R01|1|P|2.5\rPID|1||4711||Doe^Jane\r"
        f"OBR|1||{accession}^RIS|||||||||||||||||||{time}|||{status}\r"
        f"OBX|1|TX|71020^CXR||{text}||||||{status}\r"
    )


def fhir(text: str, *, accession: str = "A100", status: str = "final") -> str:
    report = {
        "resourceType": "DiagnosticReport", "status": status, "conclusion": text,
        "identifier": [{"value": accession}], "issued": "2026-11-29T11:00:00Z",
    }  # fmt: skip
    return json.dumps(report)


def test_a_study_and_its_reports_join_by_accession_number(watched) -> None:
    desk, folder = watched
    (folder / "a b'c.dcm").write_bytes(film(1))
    (folder / "sub").mkdir()
    (folder / "sub" / "IM0001").write_bytes(film(2, ViewPosition="LATERAL"))
    (folder / "notes.exe").write_bytes(b"MZ")
    assert _look(desk, folder) == ["study"]
    assert len(desk.filed) == 2
    (folder / "1.hl7").write_text(oru("No effusion."))
    assert _look(desk, folder) == ["report"]
    study = desk.events[0]["study"]
    assert desk.events[1]["study"] == study
    (folder / "2.hl7").write_text(oru("Small effusion.", time="202611291115", status="C"))
    assert _look(desk, folder) == ["amended"]
    (folder / "late.hl7").write_text(oru("Preliminary.", time="202611290900", status="P"))
    assert _look(desk, folder) == []
    (folder / "again.hl7").write_text(oru("No effusion."))
    assert _look(desk, folder) == []
    assert sorted(path.name for path in folder.iterdir()) == ["notes.exe", "sub"]
    edges = [e.payload for e in ledger.entries(desk.project) if e.kind == ledger.ARRIVAL]
    assert edges[0]["replaces"] == [
        {"before": desk.events[1]["report"], "now": desk.events[2]["report"]}
    ]
