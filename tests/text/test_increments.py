"""New reports cost themselves alone; shards never change; a kill at any moment loses nothing."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runs import run_tokens, shard_keys, token_rows

from lapvqa import code, storage
from lapvqa.errors import ConfigError
from lapvqa.project import Project
from lapvqa.text import token_store, tokens
from lapvqa.text.languages import SHIPPED, Languages

Reports = dict[str, str | None]
WriteStudies = Callable[..., Project]


def _reports(numbers: range) -> Reports:
    """Every fifth study has no report."""
    return {
        f"{number:03d}": f"Report {number}. No left effusion." if number % 5 else None
        for number in numbers
    }


def _files(project: Project) -> dict[str, tuple[int, bytes]]:
    """Inode and bytes of every shard."""
    paths = project.tokens_dir.iterdir()
    return {path.name: (path.stat().st_ino, path.read_bytes()) for path in paths}


def _store_files(project: Project) -> list[Path]:
    return sorted(path for path in project.work_dir("tokens").rglob("*") if path.is_file())


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The reports whose sections were looked for, in order."""
    passed: list[str | None] = []
    target_text = tokens.target_text

    def watched(report: str | None, wanted: Any, language: Any) -> Any:
        passed.append(report)
        return target_text(report, wanted, language)

    monkeypatch.setattr(tokens, "target_text", watched)
    return passed


def test_ten_more_studies_process_exactly_ten(
    write_studies: WriteStudies, seen: list[str | None], capsys: pytest.CaptureFixture[str]
) -> None:
    project = write_studies(_reports(range(30)))
    run_tokens(project, shard_reports=20)
    before = _files(project)
    seen.clear()
    write_studies(_reports(range(-5, 35)))  # five sort before all the others
    counts = run_tokens(project, shard_reports=20)
    after = _files(project)
    assert before.items() <= after.items()  # same bytes, and the same file
    assert len(after) == len(before) + 1
    ten = [*_reports(range(-5, 0)).values(), *_reports(range(30, 35)).values()]
    assert sorted(map(str, seen)) == sorted(map(str, ten))
    assert (counts["known"], counts["new"], counts["studies"]) == (30, 10, 40)
    assert "30 reports known, 10 new" in capsys.readouterr().out
    seen.clear()
    assert run_tokens(project, shard_reports=20)["new"] == 0
    assert seen == []
    assert _files(project) == after


@pytest.mark.parametrize("change", ["vanished", "new text", "new split"])
def test_only_the_shard_of_a_changed_study_is_made_again(
    write_studies: WriteStudies, seen: list[str | None], change: str
) -> None:
    reports = _reports(range(40))
    project = write_studies(reports)
    run_tokens(project, shard_reports=10)
    before = _files(project)
    seen.clear()
    splits = {}
    if change == "vanished":
        del reports["013"]
    elif change == "new text":
        reports["013"] = "Another text."
    else:
        splits = {"013": "test"}
    write_studies(reports, splits)
    counts = run_tokens(project, shard_reports=10)
    assert len(before.items() & _files(project).items()) == 3
    assert len(_files(project)) == 4
    assert seen == ([] if change == "vanished" else [reports["013"]])
    assert counts["studies"] == len(reports)
    assert _rows_of_a_first_run(project) == token_rows(project)
    again = _files(project)
    assert run_tokens(project, shard_reports=10)["new"] == 0
    assert _files(project) == again


def test_a_report_that_comes_late_or_goes(write_studies: WriteStudies) -> None:
    reports = _reports(range(12))
    project = write_studies(reports)
    run_tokens(project, shard_reports=6)
    reports["005"], reports["007"] = "It came late.", None
    write_studies(reports)
    counts = run_tokens(project, shard_reports=6)
    assert (counts["known"], counts["new"], counts["rejected"]) == (10, 2, 3)
    assert _rows_of_a_first_run(project) == token_rows(project)


def test_a_chunk_without_any_text(write_studies: WriteStudies) -> None:
    project = write_studies({"a": None, "b": None, "c": "clear"})
    counts = run_tokens(project, shard_reports=2)
    assert shard_keys(project) == [["c"]]
    assert (counts["tokenised"], counts["rejected"]) == (1, 2)
    assert run_tokens(project, shard_reports=2)["new"] == 0


def _rows_of_a_first_run(project: Project) -> list[dict[str, Any]]:
    """What a project with the same studies and no history has."""
    fresh = Project(project.root / "fresh")
    fresh.studies.parent.mkdir(parents=True, exist_ok=True)
    fresh.studies.write_bytes(project.studies.read_bytes())
    run_tokens(fresh)
    return token_rows(fresh)


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_arrival_shows_in_the_grouping_alone(
    write_studies: WriteStudies, seed: int
) -> None:
    generator = random.Random(seed)
    waiting = list(_reports(range(1, 50)).items())
    generator.shuffle(waiting)
    arrived: Reports = {}
    while waiting:
        for _ in range(min(len(waiting), generator.randint(3, 20))):
            arrived.update([waiting.pop()])
        project = write_studies(arrived)
        run_tokens(project, shard_reports=7)
    assert token_rows(project) == _rows_of_a_first_run(project)
    shards = shard_keys(project)
    assert all(keys == sorted(keys) and len(keys) <= 7 for keys in shards)
    rejects = storage.read_table(project.token_rejects, tokens.schemas.REJECTS, made_by="tokens")
    assert rejects["file"].to_pylist() == [f"{number:03d}" for number in range(5, 50, 5)]


@pytest.mark.parametrize("kind", ["tokens", "chunk"])
@pytest.mark.parametrize("harm", ["one bit", "cut", "gone"])
def test_damaged_work_is_named_and_made_again(
    write_studies: WriteStudies, capsys: pytest.CaptureFixture[str], kind: str, harm: str
) -> None:
    project = write_studies(_reports(range(30)))
    run_tokens(project, shard_reports=10)
    good = {name: data for name, (_, data) in _files(project).items()}
    victim = next(path for path in _store_files(project) if path.name.startswith(kind))
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.unlink()
    if harm != "gone":
        victim.write_bytes(data if harm == "one bit" else data[:-9])
    capsys.readouterr()
    counts = run_tokens(project, shard_reports=10)
    assert counts["new"] == 10
    if (kind, harm) != ("chunk", "gone"):
        assert "dropped damaged finished work: " in (said := capsys.readouterr().out)
        assert victim.name in said
    assert {name: data for name, (_, data) in _files(project).items()} == good


def test_the_store_keeps_what_is_in_use_of_two_settings(write_studies: WriteStudies) -> None:
    project = write_studies(_reports(range(12)))
    assert run_tokens(project, max_length=8)["new"] == 12
    assert run_tokens(project, max_length=9)["new"] == 12
    assert run_tokens(project, max_length=8)["new"] == 0
    assert run_tokens(project, max_length=10)["new"] == 12
    assert run_tokens(project, max_length=9)["new"] == 12  # the one not used for longest is gone
    assert len(list(project.work_dir("tokens").iterdir())) == 2
    write_studies(_reports(range(6, 12)))
    run_tokens(project, max_length=9)
    assert len(_store_files(project)) == 4  # chunk and shard of either setting, no more


GERMAN = "Befund: Kein Pleuraerguss. Herz normal groß.\nBeurteilung: Nummer {} ist unauffällig.\n"


def _edit(project: Project, code: str, old: str, new: str) -> None:
    """Change the project's own table of a language."""
    folder = project.root / "params" / "reports"
    if not folder.exists():
        shutil.copytree(SHIPPED, folder)
    text = (folder / f"{code}.yaml").read_text()
    assert old in text
    (folder / f"{code}.yaml").write_text(text.replace(old, new, 1))


def test_an_edit_of_a_table_makes_its_languages_rows_again(
    write_studies: WriteStudies, seen: list[str | None]
) -> None:
    german = {f"{number:03d}": GERMAN.format(number) for number in range(20, 25)}
    project = write_studies({**_reports(range(20)), **german})
    _edit(project, "de", "# German", "# The German")
    run_tokens(project, shard_reports=20)
    before = _files(project)
    seen.clear()
    _edit(project, "de", "  words: [\n    rechts*,", "  words: [\n    Herz*, rechts*,")
    counts = run_tokens(project, shard_reports=20)
    assert sorted(map(str, seen)) == sorted(german.values())
    assert (counts["known"], counts["new"]) == (20, 5)
    assert len(before.items() & _files(project).items()) == 1  # the English shard stands
    assert [row["sided"] for row in token_rows(project)[-5:]] == [True] * 5
    seen.clear()
    _edit(project, "de", "# The German", "# German")
    assert run_tokens(project, shard_reports=20)["new"] == 0
    assert seen == []


def test_a_language_is_looked_for_once(
    write_studies: WriteStudies, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = write_studies(_reports(range(12)))
    run_tokens(project)
    asked = []
    monkeypatch.setattr(Languages, "detect", lambda _, report: asked.append(report))
    write_studies(_reports(range(13)))
    run_tokens(project)
    assert asked == ["Report 12. No left effusion."]


def test_a_chosen_language_makes_again_what_another_was_detected_of(
    write_studies: WriteStudies, seen: list[str | None]
) -> None:
    project = write_studies({"a": "No effusion.", "b": GERMAN.format(1), "c": "Kaksi sanaa."})
    assert run_tokens(project)["language_unknown"] == 1
    seen.clear()
    assert run_tokens(project, language="de")["language_de"] == 3
    assert seen == ["No effusion.", "Kaksi sanaa."]
    seen.clear()
    assert run_tokens(project)["new"] == 2
    with pytest.raises(ConfigError, match=r"tokens\.language is 'fi'"):
        run_tokens(project, language="fi")


def test_where_links_are_impossible_shards_are_copied(
    write_studies: WriteStudies, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    project = write_studies(_reports(range(12)))
    run_tokens(project)
    (shard,) = project.tokens_dir.iterdir()
    assert shard.stat().st_nlink == 1
    assert len(token_rows(project)) == 9


def test_a_kill_at_any_moment_loses_and_doubles_nothing(write_studies: WriteStudies) -> None:
    """Reports arrive, a run is killed, more arrive and change: the end is that of one run."""
    generator = random.Random(0)
    reports: Reports = {}
    number, killed = 0, 0
    for _ in range(50):
        for _ in range(generator.randint(1, 12)):
            number += 1
            reports[f"{generator.randrange(10**6):06d}"] = f"Report {number}. Normal."
        changed = generator.choice(sorted(reports))
        reports[changed] = f"Changed {number}."
        project = write_studies(reports)
        killed += _run_killed(project, after=generator.uniform(0, 0.05))
    assert killed > 10
    counts = run_tokens(project, shard_reports=16)
    assert counts["studies"] == counts["tokenised"] == len(reports)
    assert token_rows(project) == _rows_of_a_first_run(project)
    live = {path.name for path in project.tokens_dir.iterdir()}
    kept = {path.name for path in _store_files(project)}
    assert {name for name in kept if not name.startswith("chunk-")} == live
    assert len(kept) == 2 * len(live)


def _run_killed(project: Project, *, after: float) -> bool:
    """Run the stage in a process of its own and kill that; return whether the kill came in time."""
    child = os.fork()
    if child == 0:
        os.close(1)
        try:
            run_tokens(project, shard_reports=16)
        finally:
            os._exit(0)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def test_all_code_that_decides_a_row_is_part_of_the_digest() -> None:
    room = Path(token_store.__file__).parent
    outside = {"__init__", "coverage", "labeler", "phi"}
    assert code.closure("lapvqa.text.tokens") == {
        f"lapvqa.text.{path.stem}" for path in room.glob("*.py") if path.stem not in outside
    }
