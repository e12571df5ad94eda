"""A folder that others write into: studies and reports, each once, however they are called."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from intake_parts import NAME, Desk, film, look, open_desk, oru

from lapvqa.lineage import ledger


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[Desk, Path]]:
    folder = tmp_path / "drop"
    folder.mkdir()
    with open_desk(tmp_path, f"watch-{NAME}") as desk:
        yield desk, folder


def test_a_study_and_its_reports_join_by_accession_number(watched) -> None:
    desk, folder = watched
    (folder / "a b'c.dcm").write_bytes(film(1))
    (folder / "sub").mkdir()
    (folder / "sub" / "IM0001").write_bytes(film(2, ViewPosition="LATERAL"))
    (folder / "notes.exe").write_bytes(b"MZ")
    assert look(desk, folder) == ["study"]
    assert len(desk.filed) == 2
    (folder / "1.hl7").write_text(oru("No effusion."))
    assert look(desk, folder) == ["report"]
    study = desk.events[0]["study"]
    assert desk.events[1]["study"] == study
    (folder / "2.hl7").write_text(oru("Small effusion.", time="202611291115", status="C"))
    assert look(desk, folder) == ["amended"]
    (folder / "late.hl7").write_text(oru("Preliminary.", time="202611290900", status="P"))
    assert look(desk, folder) == []
    (folder / "again.hl7").write_text(oru("No effusion."))
    assert look(desk, folder) == []
    assert sorted(path.name for path in folder.iterdir()) == ["notes.exe", "sub"]
    edges = [e.payload for e in ledger.entries(desk.project) if e.kind == ledger.ARRIVAL]
    assert edges[0]["replaces"] == [
        {"before": desk.events[1]["report"], "now": desk.events[2]["report"]}
    ]
