"""An archive that grows and changes: each file is processed once, old shards keep their bytes."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from made_dicom import copy_archive, write_mimic, write_project
from test_ingest import image, run, said, table

from lapvqa import code, storage, vanished
from lapvqa.errors import SchemaError, SourceError
from lapvqa.identity import Ids, Keyring
from lapvqa.images.shards import ShardStore, verify_shards
from lapvqa.ingest import result_store
from lapvqa.ingest.archives.mimic import MimicArchive
from lapvqa.ingest.archives.tree import TreeArchive
from lapvqa.ingest.one_file import Task
from lapvqa.ingest.reports import open_reports
from lapvqa.project import Project

STUDY = "files/p10/p10000001/s50000010"


@pytest.fixture(scope="module")
def mimic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mimic(tmp_path_factory.mktemp("archive") / "mimic")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, mimic: Path) -> Path:
    """Where every test has its archive and project: results are known by the archive's place."""
    place = tmp_path_factory.mktemp("place")
    project = write_project(
        place / "project", copy_archive(mimic, place / "archive"), shard_images=5
    )
    run(project)
    project.root.rename(place / "ingested")
    return place


@pytest.fixture
def archive(place: Path, mimic: Path) -> Path:
    shutil.rmtree(place / "archive")
    return copy_archive(mimic, place / "archive")


@pytest.fixture
def project(place: Path, archive: Path) -> Project:
    """A project that has ingested the archive once, in shards of five."""
    root = place / "project"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(place / "ingested", root)
    return Project(root)


def shards(project: Project) -> dict[str, str]:
    return {path.name: storage.sha256_file(path) for path in project.images_dir.iterdir()}


def again(project: Project) -> dict[str, int | float | str]:
    """Run as DVC does, and all of it: without the outputs of the run before.

    Every shard must be intact.
    """
    shutil.rmtree(project.root / "data")
    shutil.rmtree(project.work_dir("ingest") / "last", ignore_errors=True)
    counts = run(project)
    assert verify_shards(project.images_dir, shards(project)) == counts["images"]
    return counts


def fresh(project: Project, archive: Path, root: Path) -> dict[str, int | float | str]:
    """What a project without history makes of the archive."""
    other = write_project(root, archive, shard_images=5)
    other.state.mkdir(parents=True)
    shutil.copy(project.state / "deid.key", other.state / "deid.key")
    return run(other)


def add_studies(archive: Path, number: int, *, patient: int = 10_000_002) -> None:
    for index in range(number):
        study = archive / f"files/p10/p{patient}/s{51_000_000 + index}"
        study.mkdir(parents=True)
        content = image(5000 + index, patient=str(patient), study=f"1.2.51{index}")
        (study / f"{index:08x}-bbbbbbbb.dcm").write_bytes(content)
        study.with_suffix(".txt").write_text(f"FINAL REPORT\n FINDINGS: New {index}.\n")


def test_ten_more_studies_process_ten_and_leave_the_shards_alone(
    tmp_path: Path, project: Project, archive: Path
) -> None:
    before = shards(project)
    add_studies(archive, 10)
    counts = again(project)
    assert "16 files known from before, 10 new" in said(project)
    assert "8 reports known from before, 10 new" in said(project)
    assert (counts["images"], counts["studies"], counts["reports"]) == (26, 18, 18)
    assert before.items() < shards(project).items()
    assert fresh(project, archive, tmp_path / "fresh")["content"] == counts["content"]


def test_arrival_order_leaves_no_trace_in_the_content(tmp_path: Path, mimic: Path) -> None:
    paths = [path.relative_to(mimic) for path in sorted(mimic.rglob("*")) if path.is_file()]
    contents, tables = set(), set()
    for seed in range(3):
        order = random.Random(seed).sample(paths, len(paths))
        archive = tmp_path / f"archive{seed}"
        project = write_project(tmp_path / f"project{seed}", archive, shard_images=5)
        project.state.mkdir(parents=True)
        (project.state / "deid.key").write_text("0123456789abcdef" * 2)
        for delivery in (order[:9], order[9:17], order[17:]):
            for path in delivery:
                (archive / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(mimic / path, archive / path)
            with contextlib.suppress(SourceError):  # no report has its images yet
                counts = run(project)
        contents.add(counts["content"])
        tables.add(
            tuple(map(storage.sha256_file, (project.studies, project.labels, project.rejects)))
        )
    assert len(contents) == len(tables) == 1


@pytest.mark.parametrize("how", ["renamed", "moved", "redelivered"])
def test_the_same_image_elsewhere_or_later_changes_no_shard(
    tmp_path: Path, mimic: Path, how: str
) -> None:
    tree = tmp_path / "tree"
    for number, path in enumerate(sorted(mimic.rglob("*.dcm"))):
        (tree / f"s{number}").mkdir(parents=True)
        shutil.copy2(path, tree / f"s{number}/a.dcm")
    (tree / "s0/a.txt").write_text("FINDINGS: Clear.")
    project = write_project(tmp_path / "tree-project", tree, shard_images=5)
    content, before = run(project)["content"], shards(project)
    victim = tree / "s3/a.dcm"
    if how == "renamed":
        victim.rename(victim.with_name("b.dcm"))
    elif how == "moved":
        shutil.move(victim, tree / "s4/z.dcm")
    else:
        os.utime(victim, ns=(1, 1))
    counts = again(project)
    assert "15 files known from before, 1 new" in said(project)
    assert counts["content"] == content
    assert shards(project) == before


def test_a_late_file_that_sorts_first_changes_no_shard(project: Project, archive: Path) -> None:
    before = shards(project)
    (archive / "files/p10/p10000000/s50000000/00000000-00000000.dcm").write_bytes(image(7777))
    assert again(project)["images"] == 17
    assert before.items() < shards(project).items()


def test_a_replaced_file_gives_its_new_image_and_not_its_old(
    tmp_path: Path, project: Project, archive: Path
) -> None:
    before, old = shards(project), table(project.images)
    victim = sorted((archive / STUDY).glob("*.dcm"))[0]
    victim.write_bytes(image(900))
    counts = again(project)
    now = table(project.images)
    replaced = {row["pixels_sha256"] for row in old} - {row["pixels_sha256"] for row in now}
    assert len(replaced) == 1
    assert len(before.items() & shards(project).items()) == len(before) - 1
    assert fresh(project, archive, tmp_path / "fresh")["content"] == counts["content"]


def test_a_deleted_file_is_gone_from_every_shard_and_table(
    tmp_path: Path, project: Project, archive: Path
) -> None:
    before = shards(project)
    victim = sorted((archive / STUDY).glob("*.dcm"))[0]
    (row,) = (
        row for row in table(project.images) if row["file_sha256"] == storage.sha256_file(victim)
    )
    pixels = ShardStore(project.images_dir).read([row["shard"]], [row["row"]])[0].tobytes()
    holding = [path for path in project.root.rglob("*.arrow") if pixels in path.read_bytes()]
    assert len(holding) == 3  # the shard, and its links in the work store and of the last run
    victim.unlink()
    counts = again(project)
    assert counts["images"] == 15
    assert not [path for path in project.root.rglob("*.arrow") if pixels in path.read_bytes()]
    assert len(before.items() & shards(project).items()) == len(before) - 1
    assert fresh(project, archive, tmp_path / "fresh")["content"] == counts["content"]
    again(project)
    assert "15 files known from before, 0 new" in said(project)


def test_what_no_file_needs_any_more_is_deleted(project: Project, archive: Path) -> None:
    (store,) = project.work_dir("ingest").glob("files-*/")
    before = set(store.iterdir())
    shutil.rmtree(archive / "files/p10/p10000003")
    vanished.accept(project)
    run(project)
    assert len(list(store.glob("images-*"))) == len(shards(project))
    assert not before <= set(store.iterdir())


def test_a_damaged_shard_is_noticed_and_named(project: Project) -> None:
    name = sorted(shards(project))[1]
    path = project.images_dir / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()  # a link: the store's own bytes are another matter
    path.write_bytes(data)
    with pytest.raises(SchemaError, match=rf"{name} is damaged"):
        verify_shards(project.images_dir, shards(project))


_LAYOUTS = {f"lapvqa.ingest.archives.{name}" for name in ("mimic", "openi", "recognise", "tree")}


def test_an_edit_of_a_layout_makes_no_stored_result_stale() -> None:
    reached = {name for name in code.closure("lapvqa.ingest.worker") if "archives" in name}
    # No layouts: they hand over the bytes.
    assert reached == {"lapvqa.ingest.archives.members", "lapvqa.ingest.archives.names"}
    assert code.closure("lapvqa.ingest.ingest") > _LAYOUTS  # the stage itself does depend on them


@pytest.mark.parametrize("ids", [Ids("other", "50000010", "10000001"), Ids()])
def test_a_layout_that_says_something_else_of_a_file_has_it_read_again(
    project: Project, archive: Path, monkeypatch: pytest.MonkeyPatch, ids: Ids
) -> None:
    victim = sorted((archive / STUDY).glob("*.dcm"))[0].relative_to(archive).as_posix()
    ids_of = MimicArchive.ids
    monkeypatch.setattr(MimicArchive, "all_ids", None)
    monkeypatch.setattr(
        MimicArchive, "ids", lambda self, path: ids if path == victim else ids_of(self, path)
    )
    old = {row["file_sha256"]: row["image_key"] for row in table(project.images)}
    again(project)
    assert "15 files known from before, 1 new" in said(project)
    new = {row["file_sha256"]: row["image_key"] for row in table(project.images)}
    digest = storage.sha256_file(archive / victim)
    assert new.pop(digest) != old.pop(digest)
    assert new == old


@pytest.fixture
def edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Edits a copy of the package, which the digests of code are then taken of."""
    root = Path(code.__file__).parents[1]
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(root / "lapvqa", tmp_path / "copy/lapvqa", ignore=ignored)

    def edit(module: str, old: str, new: str) -> None:
        path = tmp_path / "copy" / Path(*module.split(".")).with_suffix(".py")
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        monkeypatch.setattr(code, "_ROOT", tmp_path / "copy")
        code.digest.cache_clear()
        code._parsed.cache_clear()

    yield edit
    code.digest.cache_clear()
    code._parsed.cache_clear()


ARCHIVES = "lapvqa.ingest.archives"
_DEF, _OTHER = "\n\n\ndef", "\n\n\nNEW = 1\n\n\ndef"
EDITS = {
    "a comment in a layout": (f"{ARCHIVES}.mimic", _DEF, "\n\n\n# So.\ndef", 0, 0),
    "a docstring of a layout": (f"{ARCHIVES}.tree", "A plain tree", "Any tree", 0, 0),
    "a comment in grayscale": ("lapvqa.dicom.grayscale", _DEF, "\n\n\n# So.\ndef", 0, 0),
    "a reader of other reports": (f"{ARCHIVES}.fhir", _DEF, _OTHER, 0, 0),
    "the layout's rule": (f"{ARCHIVES}.mimic", _DEF, _OTHER, 0, 8),
    "a reader of its reports": (f"{ARCHIVES}.hl7", _DEF, _OTHER, 0, 8),
    "grayscale": ("lapvqa.dicom.grayscale", _DEF, _OTHER, 16, 0),
    "how bytes are read": (f"{ARCHIVES}.members", _DEF, _OTHER, 16, 8),
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
def test_only_what_makes_pixels_has_the_archive_read_again(
    project: Project, edited: Callable[..., None], edit: str
) -> None:
    module, old, new, images, reports = EDITS[edit]
    edited(module, old, new)
    again(project)
    spoken = said(project)
    assert ("16 files known from before, 0 new" in spoken) == (images == 0)
    assert ("8 reports known from before, 0 new" in spoken) == (reports == 0)


def test_rows_are_checked_against_the_layout_once_for_each_code_of_it(
    project: Project, edited: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_store, "_MAX_UNCHECKED", 0)
    digest_of, asked = Task.layout_digest, []
    monkeypatch.setattr(
        Task, "layout_digest", lambda task, ring: asked.append(1) or digest_of(task, ring)
    )

    def checked() -> int:
        asked.clear()
        counts = again(project)
        assert "16 files known from before, 0 new" in said(project)
        assert counts["content"] == content
        return len(asked)

    content = again(project)["content"]
    (store,) = project.work_dir("ingest").glob("files-*/")
    assert len(list(store.glob("rows-*"))) == 1, "all rows in one file from now on"
    assert checked() == 0
    edited(f"{ARCHIVES}.mimic", _DEF, _OTHER)
    assert (checked(), checked()) == (16, 0)
    ids_of = MimicArchive.ids
    other = Ids("other", "50000010", "10000001")
    victim = next(project.root.parent.glob(f"archive/{STUDY}/*.dcm")).name
    monkeypatch.setattr(MimicArchive, "all_ids", None)
    monkeypatch.setattr(
        MimicArchive, "ids", lambda self, path: other if victim in path else ids_of(self, path)
    )
    edited(f"{ARCHIVES}.mimic", "NEW = 1", "NEW = 2")
    again(project)
    assert "15 files known from before, 1 new" in said(project)


def test_all_that_a_layout_says_of_a_file_is_in_the_digest_of_its_result() -> None:
    keyring = Keyring(b"a key of some length")
    tasks = [
        Task("a", 1, 2, ids, is_picture)
        for ids in (Ids(), Ids("1"), Ids(None, "1"), Ids(None, None, "1"), Ids("1", "1", "1"))
        for is_picture in (False, True)
    ]
    assert {field.name for field in fields(Task)} - {"path", "size", "mtime_ns"} == {
        "ids", "is_picture",
    }  # fmt: skip
    assert len({task.layout_digest(keyring) for task in tasks}) == len(tasks)


def test_reports_are_known_by_the_code_of_their_own_layout(tmp_path: Path) -> None:
    def folder(kind: type[MimicArchive] | type[TreeArchive]) -> Path:
        return open_reports(tmp_path / "work", tmp_path, kind(tmp_path, [], []), "flag")

    assert folder(MimicArchive) == folder(MimicArchive) != folder(TreeArchive)
