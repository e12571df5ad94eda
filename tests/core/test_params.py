"""params.yaml: what is refused, and what the refusal says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lapvqa.errors import ConfigError
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
    assert "known: evaluate, export, firewall, gate, ingest" in _refusal(raw)


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
