"""Whatever names a thing of the project is understood, and what names nothing says what is near."""

from __future__ import annotations

import hashlib
import multiprocessing
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import told_project
from told_project import COMMITS, KEYS, SHARD, Told, film_path, hexes, uuid

from flows.cli import main
from lapvqa.errors import EXIT_USER, ConfigError
from lapvqa.lineage import chosen, index, ledger, reasons, targets
from lapvqa.lineage.ancestry import Ancestry
from lapvqa.lineage.targets import Target
from lapvqa.project import Project

PATIENT, STUDY = "10000001", "50000001"
WEIGHTS = "models/captioning/encoder.safetensors"


def find(project: Project, asked: str) -> Target:
    return index.ask(project, lambda database: targets.find(project, database, asked))


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def of_pipeline(told: Told, number: int) -> set[str]:
    return {run for (_, pipeline), run in told.ids.items() if pipeline == number}


# What is asked -> the paths to start from, and the pipeline run that made them.
NAMES: dict[str, tuple[str, list[str], int]] = {
    "a file": (WEIGHTS, [WEIGHTS], 2),
    "a folder": ("models/captioning/epochs", ["models/captioning/epochs"], 2),
    "a shard": (f"data/images/{SHARD}", ["data/images"], 1),
    "a metric": ("vqa.exact_match", ["results/vqa/metrics.json"], 2),
    "a stage": ("export", [WEIGHTS], 2),
    "a task run": (uuid("export", 1), [WEIGHTS], 1),
    "a task run, short": (uuid("export", 1)[:9], [WEIGHTS], 1),
    "an MLflow run": (hexes("export", 1), [WEIGHTS], 1),
    "an MLflow run, short": (hexes("export", 2)[:10], [WEIGHTS], 2),
    "an older file's sha256": (sha256("encoder 1.0"), [WEIGHTS], 1),
    "sha256, short": (sha256("encoder 0.5")[:12], [WEIGHTS], 2),
    "md5": (hashlib.md5(b"encoder 1.0").hexdigest(), [WEIGHTS], 1),
}


@pytest.mark.parametrize("name", NAMES)
def test_what_names_an_artefact(told: Told, name: str) -> None:
    asked, paths, number = NAMES[name]
    found = find(told.project, asked)
    assert [key.path for key in found.artefacts] == paths
    assert {key.run for key in found.artefacts} <= {
        id for (_, n), id in told.ids.items() if n == number
    }


@pytest.mark.parametrize("stands_in", ["docs", "data/images", "models/captioning", "results/vqa"])
@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ("results/vqa/metrics.json", "results/vqa/metrics.json"),
        ("results/vqa/metrics.json:exact_match", "results/vqa/metrics.json"),
        ("vqa.exact_match", "results/vqa/metrics.json"),
        ("models/captioning", "models/captioning"), ("captioning", "models/captioning"),
        ("data/images.parquet", "data/images.parquet"), ("data/images", "data/images"),
        (f"data/images/{SHARD}", f"data/images/{SHARD}"),
        ("lapvqa/pretrain", "lapvqa/pretrain"), ("data/inventory", "data/inventory"),
        (sha256("encoder 0.5")[:12], WEIGHTS),
    ],
)  # fmt: skip
def test_a_path_may_be_that_from_the_projects_folder_wherever_one_stands(
    told: Told, asked: str, path: str, stands_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (told.project.root / stands_in).mkdir(exist_ok=True)
    monkeypatch.chdir(told.project.root / stands_in)
    found = find(told.project, asked)
    named = {key.path for key in found.artefacts}
    assert path in {found.asked, *named} or all(one.startswith(f"{path}/") for one in named)


def test_from_where_one_stands_comes_first(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(told.project.root / "results/vqa")
    for asked in ("metrics.json", "../vqa/metrics.json", "./metrics.json:exact_match"):
        (key,) = find(told.project, asked).artefacts
        assert key.path == "results/vqa/metrics.json"
    monkeypatch.chdir(told.project.root / "data/images")
    with pytest.raises(ConfigError, match="data/images holds no metrics.json"):
        find(told.project, "metrics.json")


def test_a_model_is_chosen_wherever_one_stands(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    (told.project.root / "docs").mkdir()
    ancestry = Ancestry(ledger.entries(told.project))
    known = chosen.model(told.project, ancestry, "models/captioning").id
    monkeypatch.chdir(told.project.root / "docs")
    assert chosen.model(told.project, ancestry, "models/captioning").id == known


@pytest.mark.parametrize(
    ("asked", "number"),
    [(uuid("flow", 1), 1), (hexes("pipeline", 2), 2), (COMMITS[0], 1), (COMMITS[1][:7], 2)],
)
def test_a_pipeline_run_or_a_commit_names_all_its_runs(told: Told, asked: str, number: int) -> None:
    found = find(told.project, asked)
    assert {key.run for key in found.artefacts} == {
        id for (_, n), id in told.ids.items() if n == number
    }


@pytest.mark.parametrize(
    ("asked", "kind", "key"),
    [
        (PATIENT, "patient", KEYS.patient(PATIENT)),
        (f"p{PATIENT}", "patient", KEYS.patient(PATIENT)),
        (KEYS.patient(PATIENT), "patient", KEYS.patient(PATIENT)),
        (STUDY, "study", KEYS.study(STUDY)),
        (f"s{STUDY}", "study", KEYS.study(STUDY)),
        (KEYS.study(STUDY)[:10], "study", KEYS.study(STUDY)),
        (film_path(PATIENT, STUDY), "film", KEYS.image(f"film {STUDY}")),
        (film_path(PATIENT, STUDY).removeprefix("demo/mimic-cxr/"), "film",
         KEYS.image(f"film {STUDY}")),
        (sha256(told_project.film_bytes(STUDY)), "film", KEYS.image(f"film {STUDY}")),
    ],
)  # fmt: skip
def test_a_person_or_a_film_by_raw_id_key_path_or_bytes(
    told: Told, monkeypatch: pytest.MonkeyPatch, asked: str, kind: str, key: str
) -> None:
    monkeypatch.chdir(told.project.root)
    found = find(told.project, asked)
    assert (found.kind, found.key) == (kind, key)
    assert PATIENT not in repr(found)  # a raw id is never said again


def test_a_file_of_the_archive_that_is_no_film_is_told_so(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(told.project.root)
    found = find(told.project, "files/readme.txt")
    assert found.kind == "listed"
    assert [key.path for key in found.artefacts] == ["data/inventory/source.parquet"]


def test_a_short_id_of_several_things_lists_them(told: Told) -> None:
    with index.opened(told.project) as database, database:
        database.execute("UPDATE films SET study_key = 'abcdef0000000001' WHERE row = 0")
        database.execute("UPDATE films SET patient_key = 'abcdef0000000002' WHERE row = 1")
    with pytest.raises(ConfigError, match="abcdef begins the names of 2 things") as caught:
        find(told.project, "abcdef")
    assert "write one of them out" in caught.value.hint


@pytest.mark.parametrize(
    ("asked", "said", "hint"),
    [
        ("data/images/nonexistent.arrow", "data/images holds no nonexistent.arrow", SHARD),
        ("models/captioning/encoder.safetensor", "is no file, metric or run", WEIGHTS),
        ("vqqa.exact_match", "is no file, metric or run", "did you mean vqa.exact_match?"),
        ("captoning", "is no file, metric or run", "models/captioning"),
        ("pretrian", "is no file, metric or run", "did you mean pretrain?"),
        ("nonsense.metric", "is no file, metric or run", "metric"),
        ("vqa.exact_mach", "no metric 'exact_mach'", "did you mean exact_match"),
        ("champion", "there is no champion yet", "`lapvqa gate` judges"),
        ("models:/lapvqa-encoder@champion", "no registered model", "no encoder is registered"),
    ],
)
def test_an_unknown_name_is_an_error_that_names_the_nearest(
    told: Told, asked: str, said: str, hint: str
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        find(told.project, asked)
    assert hint in caught.value.hint
    assert caught.value.exit_code == EXIT_USER


@pytest.mark.parametrize("command", [["patient"], ["up"], ["down"]])
def test_no_error_repeats_an_id(
    told: Told,
    command: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(told.project.root)
    assert main(["lineage", *command, "19999999"]) == EXIT_USER
    printed = capsys.readouterr()
    assert "19999999" not in printed.out + printed.err


def test_an_alias_is_found_in_the_ledger(told: Told) -> None:
    for version, rate in (("1", "1.0"), ("2", "0.5")):
        said = {"name": "lapvqa-encoder", "version": version, "aliases": ["champion"],
                "sha256": sha256(f"encoder {rate}")}  # fmt: skip
        ledger.append(told.project, ledger.MODEL, said)
    for asked, number in (("/1", 1), ("/2", 2), ("@champion", 2)):
        found = find(told.project, f"models:/lapvqa-encoder{asked}")
        assert found.artefacts[0].run == told.ids["export", number]
    with pytest.raises(ConfigError) as caught:
        find(told.project, "models:/lapvqa-encoder@champoin")
    assert "models:/lapvqa-encoder@champion" in caught.value.hint


def test_a_file_of_an_older_folder_is_found_by_dvcs_cache(
    told: Told, told_cache: Callable[[str], None]
) -> None:
    told_cache("data/images")
    told.write("data/images/images-new.arrow", "more pixels")
    told.tell("ingest", 2, started=3e9, params={"again": 1})
    assert (
        find(told.project, "data/images/images-new.arrow").artefacts[0].run == told.ids["ingest", 2]
    )
    (told.project.root / "data" / "images" / SHARD).unlink()
    told.tell("ingest", 2, started=4e9, params={"again": 2})
    older = find(told.project, f"data/images/{SHARD}").artefacts[0]
    assert older.run == told.ids["ingest", 1]


@pytest.fixture
def told_cache(told: Told) -> Callable[[str], None]:
    """Put a folder's list into DVC's cache, as `dvc repro` would."""

    def keep(path: str) -> None:
        import json

        from lapvqa.uptodate.hashes import Hasher, md5_artefact

        files = Hasher(told.project, {}).artefact(path)
        assert files is not None
        md5 = md5_artefact(files)
        listing = [{"md5": files[name].md5, "relpath": name} for name in sorted(files)]
        place = told.project.root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
        place.parent.mkdir(parents=True)
        place.write_text(json.dumps(listing))

    return keep


def test_the_index_is_not_read_again_while_its_files_are_the_same(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    with index.opened(told.project):
        pass

    def unread(_: Project) -> list[ledger.Entry]:
        raise AssertionError("the ledger was read again")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "entries", unread)
        assert find(told.project, WEIGHTS).artefacts
    ledger.append(told.project, ledger.DECISION, {"what": "something"})
    monkeypatch.setattr(ledger, "entries", unread)
    with pytest.raises(AssertionError, match="read again"):
        find(told.project, WEIGHTS)


def test_a_page_that_rots_under_the_index_is_noticed_by_the_question(told: Told) -> None:
    before = find(told.project, WEIGHTS)
    content = bytearray(told.project.lineage_index.read_bytes())
    content[4096:-4096] = b"\xff" * len(content[4096:-4096])
    told.project.lineage_index.write_bytes(content)
    assert find(told.project, WEIGHTS) == before


def test_the_index_works_without_a_write_ahead_log(told: Told) -> None:
    with index.opened(told.project) as database:
        assert database.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
        assert database.execute("PRAGMA secure_delete").fetchone()[0] == 1
        assert isinstance(database, sqlite3.Connection)
    assert not list(told.project.state.glob("*-wal"))
    assert Path(told.project.lineage_index).exists()


def _ask_often(root: Path) -> None:
    for _ in range(5):
        assert find(Project(root), WEIGHTS).artefacts
        ledger.append(Project(root), ledger.DECISION, {"what": "something"})


def test_many_may_ask_at_once_while_it_is_made_and_grows(told: Told) -> None:
    context = multiprocessing.get_context("fork")
    askers = [context.Process(target=_ask_often, args=(told.project.root,)) for _ in range(4)]
    for asker in askers:
        asker.start()
    index.rebuild(told.project)
    for asker in askers:
        asker.join()
    assert [asker.exitcode for asker in askers] == [0] * 4
    assert index.faults(told.project) == []
    with index.opened(told.project) as database:
        count = database.execute("SELECT count(*) FROM entries WHERE kind = 'decision'").fetchone()
    assert count[0] == 20


def test_no_error_repeats_what_may_be_a_raw_id(told: Told) -> None:
    asks: list[Callable[[str], object]] = [
        lambda name: find(told.project, name),
        lambda name: find(told.project, f"probe_nih14.{name}"),
        lambda name: reasons.why(told.project, name),
        lambda name: chosen.run(told.project, Ancestry(ledger.entries(told.project)), name),
    ]
    for ask in asks:
        with pytest.raises(ConfigError) as caught:
            ask("p10000032")
        assert "10000032" not in caught.value.message
