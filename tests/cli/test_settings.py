"""``run --params`` and ``run --source`` edit two files as a person would."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.commands import demo, edit_settings
from lapvqa.errors import ConfigError, SourceError
from lapvqa.inventory import scan
from lapvqa.machine import load_machine
from lapvqa.params import load_params
from lapvqa.project import Project

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    archive(tmp_path / "demo" / "mimic-cxr")
    return Project(tmp_path)


def archive(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "IM1.dcm").write_bytes(b"")
    return folder


def test_merging_changes_the_named_values_and_nothing_else(
    project: Project, tmp_path: Path
) -> None:
    before = project.params.read_text().splitlines()
    (tmp_path / "mine.yaml").write_text(
        "tokens: {max_length: 128}\npretrain:\n  lr: 5.0e-4\n  seed: 0\n  augment: false\n"
    )
    changes = edit_settings.merge_params(project, tmp_path / "mine.yaml")
    assert [(key, before, now) for key, before, now in changes] == [
        ("tokens.max_length", 64, 128),
        ("pretrain.lr", 1e-3, 5e-4),
        ("pretrain.augment", True, False),
    ]
    after = project.params.read_text().splitlines()
    different = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert [b.split("#")[0].rstrip() for _, b in different] == [
        "  max_length: 128", "  lr: 5.0e-4", "  augment: false",
    ]  # fmt: skip
    assert all(("#" in a) == ("#" in b) for a, b in different), "comments stay"
    params = load_params(project.params)
    assert (params.tokens.max_length, params.pretrain.lr) == (128, 5e-4)


def test_merging_equal_values_writes_nothing(project: Project) -> None:
    before = project.params.stat().st_mtime_ns
    assert edit_settings.merge_params(project, REPOSITORY / "params.yaml") == []
    assert project.params.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tokens: {max_lenght: 128}\n", "tokens.max_lenght is not a known parameter"),
        ("tokens: {max_length: many}\n", "tokens.max_length is 'many'"),
        ("pretrain: {lr: 7}\n", "pretrain.lr is 7"),
        ("tokens: 5\n", "tokens"),
        ("- a\n", "expected sections"),
        ("a: [\n", "not valid YAML"),
    ],
)
def test_a_wrong_value_changes_no_file(
    project: Project, tmp_path: Path, text: str, message: str
) -> None:
    before = project.params.read_bytes()
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        edit_settings.merge_params(project, tmp_path / "mine.yaml")
    assert message in caught.value.message
    assert "mine.yaml" in caught.value.message
    assert project.params.read_bytes() == before


@pytest.mark.parametrize("file", sorted((REPOSITORY / "params").glob("*.yaml")), ids=str)
def test_every_shipped_parameter_file_can_be_merged(project: Project, file: Path) -> None:
    changes = edit_settings.merge_params(project, file)
    assert bool(changes) == (file.stem != "demo")  # whose values params.yaml has
    load_params(project.params)


def test_a_source_goes_into_local_yaml_and_back(project: Project, tmp_path: Path) -> None:
    own = tmp_path / "own archive"
    archive(own)
    project.local.write_text("# my machine\nworkers: 3  # of four\n")
    said = edit_settings.set_source(project, own)
    assert "own archive, kept in local.yaml (back: lapvqa run --source demo/mimic-cxr)" in said
    text = project.local.read_text()
    assert "# my machine" in text
    assert "workers: 3  # of four" in text
    machine = load_machine(project)
    params = load_params(project.params).inventory
    assert machine.folder("source", params, project) == own
    assert machine.workers == 3
    assert "already" in edit_settings.set_source(project, own)
    said = edit_settings.set_source(project, project.root / "demo" / "mimic-cxr")
    assert "removed from local.yaml" in said
    assert project.local.read_text() == "# my machine\nworkers: 3  # of four\n"


def test_a_source_elsewhere_is_kept_absolute(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    own = archive(tmp_path_factory.mktemp("own"))
    edit_settings.set_source(project, own)
    assert load_machine(project).paths.source == str(own)
    assert edit_settings.remove_source(project)
    assert load_machine(project).paths.source is None
    assert edit_settings.remove_source(project) == ""


def test_the_default_source_needs_no_local_yaml(project: Project) -> None:
    said = edit_settings.set_source(project, project.root / "demo" / "mimic-cxr")
    assert said == "source: demo/mimic-cxr, as params.yaml says"
    assert not project.local.exists()


def test_the_demo_is_written_where_params_yaml_says_or_not_at_all(project: Project) -> None:
    assert demo.demo_folder(project) == project.root / "demo"
    project.params.write_text(project.params.read_text().replace("demo/mimic-cxr", "/data/mimic"))
    with pytest.raises(ConfigError) as caught:
        demo.demo_folder(project)
    assert "inventory.source is /data/mimic" in caught.value.message
    assert "lapvqa run --source DIR" in caught.value.hint


def test_a_link_is_kept_as_it_was_given(project: Project, tmp_path_factory) -> None:
    there = tmp_path_factory.mktemp("there")
    archive(there / "real")
    (there / "current").symlink_to(there / "real")
    edit_settings.set_source(project, there / "current")
    assert load_machine(project).paths.source == str(there / "current")


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda path: None, "nothing"),
        (lambda path: path.symlink_to("nowhere"), "a link that leads nowhere"),
        (lambda path: path.symlink_to(path), "a link that leads nowhere"),
        (lambda path: path.mkdir(), "an empty folder"),
        (lambda path: path.write_text(""), "a file"),
        (lambda path: path.symlink_to(".."), "the folder of this project, or one around it"),
    ],
)
def test_a_bad_source_is_refused_and_not_kept(project: Project, make, found: str) -> None:
    path = project.root / "own"
    make(path)
    with pytest.raises(SourceError, match=f"found {found}"):
        edit_settings.set_source(project, path)
    with pytest.raises(SourceError):
        edit_settings.set_reports(project, project.params, path)
    assert not project.local.exists()


def test_a_folder_of_no_layout_is_refused_and_what_was_read_stays(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pictures = tmp_path_factory.mktemp("pictures")
    for number in range(5):
        (pictures / f"{number}.png").write_bytes(b"\x89PNG")
    edit_settings.set_source(project, archive(project.root / "own"))
    before = project.local.read_bytes()
    with pytest.raises(SourceError, match=r"none that a layout knows among 5 files \(5 \.png"):
        edit_settings.set_source(project, pictures)
    with pytest.raises(SourceError, match="none that a layout knows"):
        edit_settings.set_reports(project, project.params, pictures)
    assert project.local.read_bytes() == before
    assert not (project.root / edit_settings.LINKED).exists()


def test_a_source_inside_the_project_is_taken_with_a_warning(project: Project) -> None:
    assert "inside the project" in edit_settings.set_source(project, archive(project.root / "own"))
    assert load_machine(project).paths.source == "own"


def test_a_source_beside_the_project_is_kept_whole(
    project: Project, tmp_path_factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = archive(tmp_path_factory.mktemp("beside"))
    monkeypatch.chdir(project.root)
    given = Path("..") / beside.name
    assert "inside the project" not in edit_settings.set_source(project, given)
    assert load_machine(project).paths.source == str(beside)


def test_reports_elsewhere_are_read_beside_the_archive(project: Project, tmp_path_factory) -> None:
    there = tmp_path_factory.mktemp("there")
    own, table = archive(there / "films"), there / "reports.csv"
    table.write_text("study_uid,report\n1.2.3,Clear lungs.\n")
    edit_settings.set_reports(project, table, own)
    machine = load_machine(project)
    assert (machine.paths.source, machine.reports.table) == ("linked", "reports/reports.csv")
    listed = {path for path, _, _ in scan(project.root / "linked")}
    assert listed == {"images/IM1.dcm", "reports/reports.csv"}

    texts = there / "texts"
    texts.mkdir()
    (texts / "1.2.3.txt").write_text("Clear lungs.")
    edit_settings.set_reports(project, texts, None)  # the archive stays
    assert load_machine(project).reports.table is None
    listed = {path for path, _, _ in scan(project.root / "linked")}
    assert listed == {"images/IM1.dcm", "reports/1.2.3.txt"}

    edit_settings.set_reports(project, table, None)
    edit_settings.set_source(project, own)  # alone again: no table is looked for
    machine = load_machine(project)
    assert (machine.paths.source, machine.reports.table) == (str(own), None)
    assert sorted(path.name for path in there.iterdir()) == ["films", "reports.csv", "texts"]


def test_the_demo_does_not_take_the_place_of_an_archive(project: Project, tmp_path_factory) -> None:
    edit_settings.set_source(project, archive(tmp_path_factory.mktemp("own")))
    before = project.local.read_bytes()
    with pytest.raises(ConfigError, match="reads an archive of its own"):
        demo.execute(project, patients=2, studies=2, seed=0)
    assert project.local.read_bytes() == before
    assert [path.name for path in (project.root / "demo").iterdir()] == ["mimic-cxr"]
