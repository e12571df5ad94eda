"""params.yaml: what is refused, and what the refusal says."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from lapvqa.errors import ConfigError
from lapvqa.ingest.rejects import Waivers, load_waivers
from lapvqa.machine import Machine, load_machine
from lapvqa.params import Params, load_params, read_yaml, validate
from lapvqa.project import Project


@pytest.fixture
def raw(repository: Path) -> dict[str, Any]:
    return read_yaml(repository / "params.yaml")


def _refusal(raw: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        validate(Params, raw, "params.yaml")
    return str(caught.value)


def test_the_shipped_file_is_accepted(raw: dict[str, Any]) -> None:
    assert validate(Params, raw, "params.yaml").pretrain.objective == "captioning"


def test_unknown_key_names_the_nearest(raw: dict[str, Any]) -> None:
    raw["tokens"]["max_lenght"] = 128
    assert "tokens.max_lenght is not a known parameter; nearest: max_length" in _refusal(raw)


def test_unknown_section_lists_what_is_known(raw: dict[str, Any]) -> None:
    raw["zzz"] = {}
    assert "evaluate, export, firewall" in _refusal(raw).partition("known: ")[2]


def test_every_fault_is_named_at_once(raw: dict[str, Any]) -> None:
    raw["pretrain"]["lr"] = "fast"
    raw["tokens"]["max_length"] = 3
    del raw["pretrain"]["epochs"]
    text = _refusal(raw)
    assert "pretrain.lr is 'fast'" in text
    assert "tokens.max_length is 3" in text
    assert "pretrain.epochs is missing" in text


def test_text_is_not_taken_for_a_number(raw: dict[str, Any]) -> None:
    raw["tokens"]["max_length"] = "128"
    assert "tokens.max_length is '128'" in _refusal(raw)


def test_sizes_must_fit(raw: dict[str, Any]) -> None:
    raw["pretrain"]["model"]["heads"] = 7
    assert "must divide the width" in _refusal(raw)


def test_shares_must_leave_training(raw: dict[str, Any]) -> None:
    raw["ingest"]["split"] = {"validate": 0.5, "test": 0.5, "seed": 0}
    assert "must leave a share for training" in _refusal(raw)


def test_numbers_are_read_as_dvc_reads_them(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("a: 1e-4\nb: 010\nc: yes\n")
    # YAML 1.2: a float, decimal ten, and the text "yes".
    assert read_yaml(file) == {"a": 1e-4, "b": 10, "c": "yes"}


def test_absent_and_malformed_files_say_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found none"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [1\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="expected sections"):
        load_params(tmp_path / "params.yaml")


def edited(project: Project, old: str, new: str) -> None:
    """Replace one text of params.yaml that stands there once."""
    text = project.params.read_text()
    assert text.count(old) == 1
    project.params.write_text(text.replace(old, new))


@pytest.fixture
def project(tmp_path: Path, repository: Path) -> Project:
    shutil.copy(repository / "params.yaml", tmp_path)
    return Project(tmp_path)


def line_of(project: Project, text: str) -> int:
    lines = project.params.read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.strip().startswith(text))


@pytest.mark.parametrize(
    ("old", "new", "said", "at"),
    [
        ("  max_length:", "  max_lenght:", "tokens.max_lenght is not a known parameter; nearest: "
         "max_length", "max_lenght"),
        ("\ntokens:\n", "\ntokenz:\n", "tokenz is not a known parameter; nearest: tokens",
         "tokenz"),
        ("\ntokens:\n", "\ntokens: many\nother:\n", "tokens: expected a section, found text",
         "tokens: many"),
        ("\ntokens:\n", "\ntokens:\nother:\n", "tokens: expected a section, found nothing",
         "tokens:"),
        ("\ntokens:\n", "\ntokens:\n\tlanguage: en\n", "not valid YAML: found a tab",
         "language: en"),
        ("  max_length:", "  max_length: 8\n  max_length:", "max_length stands twice (lines ",
         "max_length:"),
        ("  freeze: []", "  freeze:\n    - {from: 2026-11-01, until: 2026-11-05}",
         "retraining.freeze.0.until is 2026-11-05, which YAML takes for a date; write it in "
         'quotes: "2026-11-05"', "- {from:"),
        ("  max_length:", "  max_length: [\n  other:", "not valid YAML: ", None),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_file_is_said_with_its_line(
    project: Project, old: str, new: str, said: str, at: str | None
) -> None:
    edited(project, old, new)
    with pytest.raises(ConfigError) as caught:
        load_params(project.params)
    (fault,) = [line for line in caught.value.message.splitlines() if said in line]
    assert fault.startswith("params.yaml")
    lines = re.findall(r"lines? (\d+)", fault)
    assert lines
    assert at is None or int(lines[0]) == line_of(project, at)
    assert "params.yaml" in caught.value.hint or "section:" in caught.value.hint


def test_a_file_without_a_setting_is_empty_only_where_something_is_needed(project: Project) -> None:
    for text in ("", "# nothing\n", "---\n", "{}\n"):
        for path in (project.params, project.local, project.waivers):
            path.write_text(text)
        with pytest.raises(ConfigError, match="params.yaml is empty; expected inventory, ingest"):
            load_params(project.params)
        assert load_machine(project) == Machine()
        assert load_waivers(project) == Waivers()


def test_a_section_that_is_missing_names_its_keys(project: Project) -> None:
    text = project.params.read_text()
    begin, end = text.index("\nexport:"), text.index("\nevaluate:")
    project.params.write_text(text[:begin] + text[end:])
    with pytest.raises(ConfigError, match="export is missing; a section with license, onnx"):
        load_params(project.params)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("local.yaml", "workers: 2\nworkers: 3\n", "workers stands twice (lines 1 and 2)"),
        ("local.yaml", "a line of text\n", "local.yaml: expected sections, found text"),
        ("local.yaml", "paths:\n\tsource: x\n", "found a tab (line 2"),
        ("local.yaml", "paths:\n  sorce: x\n", "paths.sorce is not a known parameter; nearest: "
         "source (line 2)"),
        ("local.yaml", "intake:\n  pull:\n    a:\n      ulr: http://b\n", "intake.pull.a.ulr is "
         "not a known parameter; nearest: url (line 4)"),
        ("local.yaml", "# K\xe4rtchen\nworkers: 2\n", "it is not written in UTF-8 (line 1)"),
        ("waivers.yaml", "waivers:\n- {file: x, reson: y}\n", "waivers.0.reson is not a known "
         "parameter; nearest: reason (line 2)"),
        ("waivers.yaml", "- {file: x, reason: y}\n", "waivers.yaml: expected sections, found a "),
    ],
)  # fmt: skip
def test_the_other_files_of_settings_are_told_the_same(
    project: Project, name: str, text: str, said: str
) -> None:
    (project.root / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        (load_machine if name == "local.yaml" else load_waivers)(project)
    assert said in caught.value.message
    assert "\t" not in caught.value.message


def test_machine_facts_replace_folders_only(tmp_path: Path, raw: dict[str, Any]) -> None:
    params = validate(Params, raw, "params.yaml").inventory
    project = Project(tmp_path)
    assert load_machine(project).folder("source", params, project) == tmp_path / "demo/mimic-cxr"
    project.local.write_text("paths:\n  source: ../archive\n")
    machine = load_machine(project)
    assert machine.folder("source", params, project) == (tmp_path / "../archive").resolve()
    assert machine.folder("nih14", params, project) == tmp_path / "demo/nih-cxr14"


def test_machine_refuses_unknown_keys(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.local.write_text("worker: 3\n")
    with pytest.raises(ConfigError, match="local.yaml: worker is not a known parameter"):
        load_machine(project)
    assert Machine().workers >= 1
