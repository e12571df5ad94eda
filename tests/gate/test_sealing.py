"""`lapvqa gate --seal`: what it writes, what a dry run leaves alone, which options it takes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from flows.cli import main
from lapvqa.lineage import ledger
from lapvqa.project import Project


@pytest.fixture
def project(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(repository / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


def files(project: Project) -> list[Path]:
    return sorted(project.root.rglob("*"))


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_a_dry_run_seals_nobody_and_writes_nothing(
    project: Project, capsys: pytest.CaptureFixture[str], as_json: tuple[str, ...]
) -> None:
    before = files(project)
    assert main(["gate", "--seal", "--dry-run", *as_json]) == 0
    said = capsys.readouterr().out
    assert files(project) == before
    if as_json:
        assert json.loads(said)["sealed"] is False
    else:
        assert "a share of 0.5 would be kept" in said


def test_sealing_is_told_to_machines_too(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gate", "--seal", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["sealed"], said["round"], said["shown_patients"]) == (True, "round 1", 0)
    assert json.loads(project.sealed.read_text())["round"] == "round 1"
    assert len(ledger.entries(project)) == 1


def test_a_second_share_is_asked_for_by_name(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gate", "--seal"]) == 0
    for more in ((), ("--dry-run",)):
        assert main(["gate", "--seal", *more]) != 0
        said = capsys.readouterr().err
        assert "(round 1)" in said
        assert "--new-round" in said
    assert main(["gate", "--seal", "--new-round"]) == 0
    assert "(round 2)" in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--new-round"], ["--seal", "--again"]])
def test_options_that_do_nothing_together_are_refused(
    project: Project, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    before = files(project)
    assert main(["gate", *options]) != 0
    assert options[-1] in capsys.readouterr().err
    assert files(project) == before
