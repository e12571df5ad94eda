"""``run --params`` and ``run --source`` edit two files as a person would."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.commands import demo, edit_settings
from lapvqa.errors import ConfigError
from lapvqa.machine import load_machine
from lapvqa.params import load_params
from lapvqa.project import Project

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    (tmp_path / "demo" / "mimic-cxr").mkdir(parents=True)
    return Project(tmp_path)


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
    assert edit_settings.merge_params(project, file)
    load_params(project.params)


def test_a_source_goes_into_local_yaml_and_back(project: Project, tmp_path: Path) -> None:
    own = tmp_path / "own archive"
    own.mkdir()
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
    own = tmp_path_factory.mktemp("own")
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
