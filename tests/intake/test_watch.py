"""A folder that others write into: studies and reports, each once, however they are called."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from intake_parts import NAME, Desk, film, look, make_project, open_desk, oru
from jobs import make_job
from unprivileged import unprivileged

from flows.cli import main
from flows.commands.intake import open_job
from lapvqa.errors import EXIT_USER, ConfigError, NotAllowedError, StorageFullError
from lapvqa.intake.inbox import open_inbox
from lapvqa.intake.watch import Watcher, watch
from lapvqa.lineage import graph, ledger, story
from lapvqa.lineage.impact import follow as impact_of
from lapvqa.machine import ReportSources, load_machine


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


def test_the_same_again_and_files_that_stay_are_taken_once(watched) -> None:
    desk, folder = watched
    (folder / "1.dcm").write_bytes(film(1))
    (folder / "A100.txt").write_text("No effusion.\n")
    assert look(desk, folder, keep=True) == ["report", "study"]
    assert look(desk, folder, keep=True) == []
    assert sorted(path.name for path in folder.iterdir()) == ["1.dcm", "A100.txt"]
    (folder / "copy of 1.dcm").write_bytes(film(1))
    assert look(desk, folder) == []
    assert list(folder.iterdir()) == []
    assert len(desk.filed) == 1


def test_two_studies_of_which_the_same_is_said_have_a_report_each(watched) -> None:
    desk, folder = watched
    for number in (1, 2):
        (folder / f"{number}.dcm").write_bytes(
            film(number, study=f"1.2.{number}", accession=f"A{number}")
        )
        (folder / f"A{number}.txt").write_text("No acute cardiopulmonary process.\n")
    assert sorted(look(desk, folder)) == ["report", "report", "study", "study"]
    kept = [path.name for path in desk.archive.rglob("*.txt")]
    assert sorted(kept) == ["A1.txt", "A2.txt"]
    (folder / "A2.txt").write_text("No acute cardiopulmonary process.\n")
    assert look(desk, folder) == []
    assert len(list(desk.archive.rglob("*.txt"))) == 2


def test_a_study_from_two_sources_is_one(watched) -> None:
    desk, folder = watched
    (folder / "1.dcm").write_bytes(film(1))
    assert look(desk, folder) == ["study"]
    home = desk.filed[0].parent
    for number in (1, 2):
        (folder / f"{number}.dcm").write_bytes(film(number))
    watcher = Watcher(folder, "WARD", desk.filing, ReportSources(), settled=0.0)
    watcher.look()
    desk.filing.settle()
    assert [(event["event"], event["source"]) for event in desk.events] == [
        ("study", NAME), ("amended", "WARD"),
    ]  # fmt: skip
    assert {path.parent for path in desk.filed} == {home}
    assert len(desk.filed) == 2


def test_a_report_without_a_date_takes_the_place_of_the_one_before(watched) -> None:
    desk, folder = watched
    for turn in range(3):
        (folder / "A100.txt").write_text(f"Turn {turn}.\n")
        assert look(desk, folder) == ["amended" if turn else "report"]
    written = [event["written"] for event in desk.events]
    assert written == sorted(set(written))


def test_a_withdrawn_report_is_amended(watched) -> None:
    desk, folder = watched
    (folder / "1.hl7").write_text(oru("No effusion."))
    (folder / "2.hl7").write_text(oru("", time="202611291200", status="X"))
    assert look(desk, folder) == ["report", "amended"]


def test_files_that_are_still_written_and_what_is_none_of_ours_stay(watched) -> None:
    desk, folder = watched
    (folder / "1.dcm").write_bytes(film(1))
    watcher = Watcher(folder, NAME, desk.filing, ReportSources(), settled=3600.0)
    assert watcher.look() == 1
    left = {
        "2.dcm.part": film(2),
        "scan.pdf": b"%PDF-1.7",
        "adt.hl7": b"MSH|^~\\&|A|B|||1||ADT^A01|1|P|2.5\rPID|1||4711||Doe^Jane\r",
        "broken.dcm": b"\0" * 128 + b"DICM",
    }
    for name, data in left.items():
        (folder / name).write_bytes(data)
    (folder / "link").symlink_to(folder / "nothing")
    assert look(desk, folder) == ["study"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*left, "link"])
    assert "neither DICOM nor a report: 3 files" in "\n".join(desk.said)
    assert not any(word in "\n".join(desk.said) for word in ("Doe", "4711", "adt", "scan"))


def test_what_belongs_to_the_project_is_not_watched(watched) -> None:
    desk, folder = watched
    root = desk.project.root
    (root / "ledger" / "private").mkdir(parents=True)
    (folder.parent / "link").symlink_to(root / "ledger")
    data_set = folder.parent / "chexpert"
    data_set.mkdir()
    for wrong, whose in (
        (desk.archive, "the archive"), (desk.inbox.folder, "the archive"),
        (root, "the project"), (root / "ledger" / "private", "the project"),
        (folder.parent / "link", "the project"), (folder.parent, "the archive"),
        (Path("/"), "the archive"), (data_set, "a data set"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=f"apart from {whose}|apart from .* {whose}"):
            Watcher(wrong, NAME, desk.filing, ReportSources(), [data_set])


@pytest.mark.parametrize("folder", [".", "ledger", "..", "incoming"])
def test_the_command_dismantles_no_project(
    tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_project(tmp_path / "home").root
    for name in ("ledger/private/patient.txt", "requirements/lock.txt", "incoming/A100.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("0123456789abcdef\n")
    monkeypatch.chdir(root)
    before = {path for path in root.rglob("*") if ".lapvqa" not in path.parts}
    assert main(["watch", folder, "--once"]) == EXIT_USER
    assert "expected a folder apart from" in " ".join(capsys.readouterr().err.split())
    assert {path for path in root.rglob("*") if ".lapvqa" not in path.parts} == before


def test_what_a_link_leads_to_in_the_project_stays(watched) -> None:
    desk, folder = watched
    keys = desk.project.row_numbers / "patient.txt"
    keys.parent.mkdir(parents=True)
    keys.write_text("0123456789abcdef\n")
    (folder / "link").symlink_to(desk.project.root)
    (folder / "1.dcm").write_bytes(film(1))
    assert look(desk, folder) == ["study"]
    assert keys.read_text() == "0123456789abcdef\n"
    assert not (folder / "1.dcm").exists()
    assert any("behind a link into the project" in line for line in desk.said)


def test_the_archive_is_apart_from_the_project(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    project.local.write_text(project.local.read_text().replace(str(tmp_path / "archive"), "."))
    with (
        pytest.raises(ConfigError, match="apart from the project"),
        open_inbox(make_job(project, load_machine(project)), "receive"),
    ):
        pass


@pytest.fixture
def locked() -> Iterator[tuple[Desk, Path]]:
    """A folder that may be read only, and an archive that may be written."""
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are open to one user
        folder = Path(place) / "drop"
        folder.mkdir()
        (folder / "1.dcm").write_bytes(film(1))
        (folder / "A100.txt").write_text("No effusion.\n")
        with open_desk(Path(place), f"watch-{NAME}") as desk:
            desk.project.state.mkdir(exist_ok=True)
            for path in (Path(place), *Path(place).rglob("*")):
                path.chmod(0o777 if path.is_dir() else 0o666)
            folder.chmod(0o555)
            with unprivileged():
                yield desk, folder
            folder.chmod(0o755)


def test_what_may_not_be_removed_is_taken_once_and_said_to_be(locked) -> None:
    desk, folder = locked
    for looks in (2, 1):
        watcher = Watcher(folder, NAME, desk.filing, ReportSources(), settled=0.0)
        for _ in range(looks):
            watcher.look()
            desk.filing.settle()
    assert sorted(event["event"] for event in desk.events) == ["report", "study"]
    told = [line for line in desk.said if "left there" in line]
    assert told == 2 * [
        f"{NAME}: left there, taken, but it may not be removed there; not taken again: 2 files"
    ]
    assert watcher.others == 0


@pytest.mark.parametrize("command", ["watch", "receive", "pull"])
def test_an_archive_that_may_not_be_written_is_named(locked, command: str) -> None:
    desk, folder = locked
    local = desk.project.local
    local.write_text(local.read_text().replace(str(desk.archive), str(folder)))
    with pytest.raises(NotAllowedError) as error:
        open_job(desk.project, command)
    assert str(folder) in error.value.message
    assert "paths.source of local.yaml" in error.value.message


def test_a_disk_without_room_is_called_full_whatever_is_to_stay_free(watched, monkeypatch) -> None:
    desk, folder = watched
    (folder / "1.dcm").write_bytes(film(1))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(StorageFullError, match="the disk is full where the archive lies") as error:
        look(desk, folder)
    assert "min_free_gb" not in error.value.hint
    assert (folder / "1.dcm").exists()


def test_what_cannot_be_read_is_taken_once_it_can(watched) -> None:
    desk, folder = watched
    film_file = folder / "1.dcm"
    film_file.symlink_to(folder.parent / "not there yet")
    watcher = Watcher(folder, NAME, desk.filing, ReportSources(), settled=0.0)
    assert watcher.look() == 0, "nobody writes a link to nothing: it is not waited for"
    assert watcher.others == 1
    assert "it cannot be read; tried again: 1 file" in desk.said[-1]
    film_file.resolve().write_bytes(film(1))
    watcher.look()
    desk.filing.settle()
    assert [event["event"] for event in desk.events] == ["study"]
    assert watcher.others == 0
    assert list(folder.iterdir()) == []


def test_lineage_tells_of_a_study_what_took_the_place_of_what(watched) -> None:
    desk, folder = watched
    (folder / "1.dcm").write_bytes(film(1))
    (folder / "1.hl7").write_text(oru("No effusion."))
    look(desk, folder)
    (folder / "2.hl7").write_text(oru("Small effusion.", time="202611291115", status="C"))
    look(desk, folder)
    (study,) = [event["study"] for event in desk.events if event["event"] == "study"]
    impact = impact_of(desk.project, study)
    (edge,) = impact.replaced
    assert [edge["before"], edge["now"]] == [e["report"] for e in desk.events if "report" in e]
    drawn = graph.of_impact(impact)
    assert (edge["before"], edge["now"]) in drawn.edges
    assert "A report from RIS took the place of what was here before." in [
        event.sentence for event in story.tell(desk.project)
    ]


def test_once_says_what_it_waits_for(tmp_path: Path) -> None:
    (folder := tmp_path / "drop").mkdir()
    (folder / "1.dcm").write_bytes(film(1))
    looks = iter([False, False, True])
    with open_desk(tmp_path, f"watch-{NAME}", quiet_seconds=60.0) as desk:
        watcher = Watcher(folder, NAME, desk.filing, ReportSources(), settled=0.0)
        watch(watcher, lambda: next(looks), once=True)
    told = [line for line in desk.said if "waits until" in line]
    assert told == [
        f"{NAME}: waits until nothing more of 1 study has come for 60 s "
        "(intake.quiet_seconds of local.yaml)"
    ]
