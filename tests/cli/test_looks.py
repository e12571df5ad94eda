"""A look makes nothing, and works where nothing may be written."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import written_ledger
from cli_answer import Lapvqa
from unprivileged import unprivileged

from flows.commands import doctor
from lapvqa.project import Project

REPOSITORY = Path(__file__).parents[2]


def in_clone(root: Path) -> Path:
    """Return ``root`` with what makes it a project."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(REPOSITORY / name, root)
    return root


def everything(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*")}


LOOKS = [
    ("status",), ("plan",), ("rejects",), ("lineage", "export"), ("lineage", "down", "data"),
    ("lineage", "log"), ("lineage", "verify"), ("lineage", "why", "export"),
    ("lineage", "patient", "12345678"), ("erase", "--patient", "12345678"),
    ("erase", "--check", "params.yaml"), ("card", "captioning"), ("card", "--check", "dvc.yaml"),
    ("sync",),
]  # fmt: skip


def test_no_look_makes_anything_in_an_empty_clone(
    tmp_path: Path, lapvqa: Lapvqa, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(in_clone(tmp_path))
    before = everything(tmp_path)
    for look in LOOKS:
        answer = lapvqa(*look)
        assert answer.code in (0, 2, 3), (look, answer.err)
        assert everything(tmp_path) == before, look
    monkeypatch.delenv("PREFECT_HOME", raising=False)
    for check in (doctor.prefect, doctor.mlflow, doctor.ledger):
        assert {one.status for one in check(Project(tmp_path))} <= {doctor.OK}
    assert everything(tmp_path) == before


QUESTIONS = [
    ("lineage", "export"), ("lineage", "down", "captioning"), ("lineage", "log"),
    ("lineage", "patient", written_ledger.PATIENTS[0]), ("card", "captioning"), ("status",),
]  # fmt: skip
WRITES = [
    ("bundle", "captioning", "--out", "model.zip"), ("sync",),
    ("lineage", "export", "--html", "lineage.html"),
]  # fmt: skip


@pytest.fixture
def locked(tmp_path: Path, lapvqa: Lapvqa, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project that this user may read and not write."""
    # All is imported before: nobody may not read the home of the user whose Python this is.
    monkeypatch.chdir(in_clone(written_ledger.write(tmp_path / "warm").root))
    for command in (*QUESTIONS, *WRITES):
        assert lapvqa(*command).code == 0, command
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are open to one user
        root = Path(folder) / "project"
        in_clone(written_ledger.write(root).root)
        (root / ".lapvqa").mkdir()
        for path in (Path(folder), *root.rglob("*"), root):
            path.chmod(0o555 if path.is_dir() else 0o444)
        monkeypatch.chdir(root)
        with unprivileged():
            yield root
        for path in (Path(folder), root, *filter(Path.is_dir, root.rglob("*"))):
            path.chmod(0o755)


def test_questions_are_answered_where_nothing_may_be_written(locked: Path, lapvqa: Lapvqa) -> None:
    before = everything(locked)
    for question in QUESTIONS:
        answer = lapvqa(*question)
        assert answer.code == 0, (question, answer.err)
    assert everything(locked) == before


def test_what_has_to_write_says_that_it_may_not(locked: Path, lapvqa: Lapvqa) -> None:
    before = everything(locked)
    for command in WRITES:
        answer = lapvqa(*command)
        assert answer.code == 2, (command, answer.err)
        assert "Permission denied" in answer.err
        assert "fault of LAPVQA" not in answer.err
    assert everything(locked) == before


@pytest.mark.parametrize(("place", "named"), [("/proc/deep/out", "/proc"), ("file/out", "file")])
def test_where_nothing_can_be_written_is_said_before_the_work(
    place: str, named: str, lapvqa: Lapvqa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(in_clone(tmp_path))
    Path("file").touch()
    Path("a.png").touch()
    for command in (
        ("embed", "a.png", "--out"), ("bundle", "nothing", "--out"),
        ("card", "nothing", "--out"), ("export-lineage", "nothing", "--out"),
        ("export-lineage", "nothing", "--format", "ro-crate", "--out"),
        ("lineage", "nothing", "--html"), ("inspect", "a.png", "--png"),
    ):  # fmt: skip
        answer = lapvqa(*command, place)
        assert answer.code == 2, (command, answer.err)
        assert f"{command[-1]}: expected a folder" in answer.err, (command, answer.err)
        assert str(Path(named).absolute()) in answer.err.replace("\n", "")


def test_a_path_in_a_closed_folder_is_told_as_that(
    lapvqa: Lapvqa, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are open to one user
        Path(folder).chmod(0o755)
        monkeypatch.chdir(in_clone(Path(folder)))
        closed = Path(folder) / "closed"
        closed.mkdir(mode=0)
        with unprivileged():
            answers = [lapvqa(command, f"{closed}/a") for command in ("embed", "inspect")]
        monkeypatch.undo()
    for answer in answers:
        assert answer.code == 2
        found = "found a folder above it that is closed (Permission denied)"
        assert f"at {closed}/a, {found}" in answer.err
