"""The table, the parameters, the stages and dvc.yaml name the same evaluations."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from lapvqa import code
from lapvqa.errors import ConfigError
from lapvqa.evaluation import task_table
from lapvqa.evaluation.task_table import EVALUATIONS
from lapvqa.firewall.held_out import ARCHIVE, NAMES
from lapvqa.metrics import record
from lapvqa.params import EvaluateParams, InventoryParams, read_yaml
from lapvqa.stage import STAGES, code_modules


def graph(repository: Path) -> dict[str, Any]:
    stages: dict[str, Any] = YAML(typ="safe").load((repository / "dvc.yaml").read_text())["stages"]
    return stages


def test_table_parameters_stages_and_graph_have_the_same_tasks(repository: Path) -> None:
    expected = list(EVALUATIONS)
    assert [record.name for record in task_table.find_all()] == expected
    assert [name for name in EvaluateParams.model_fields if name != "common"] == expected
    sections = read_yaml(repository / "params.yaml")["evaluate"]
    assert [name for name in sections if name != "common"] == expected
    assert list(graph(repository)["evaluate"]["foreach"]) == expected
    stages = [name.partition("@")[2] for name in STAGES if name.startswith("evaluate@")]
    assert stages == expected


def test_the_graph_has_the_folders_and_rooms_of_the_table(repository: Path) -> None:
    stages = graph(repository)
    for task in task_table.find_all():
        item = stages["evaluate"]["foreach"][task.name]
        assert item["code"] == EVALUATIONS[task.name].rpartition(".")[0].replace(".", "/")
        if task.folder is not None:
            assert task.folder.name in InventoryParams.model_fields
            assert item["data"] == f"data/inventory/{task.folder.name}.parquet"
        name = task.folder.name if task.folder else ARCHIVE
        assert name in NAMES  # else training would not lose what the task tests
        assert item["tested"] == f"data/firewall/tested/{name}.parquet"
        for file in ("metrics.json", "predictions.parquet"):
            assert f"results/{task.name}/{file}" in stages["report"]["deps"]


@pytest.mark.parametrize("name", EVALUATIONS)
def test_each_record_is_whole(name: str) -> None:
    task = task_table.find(name)
    module, _, function = task.judge.partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    assert record.base_name(task.primary) in record.DEFINITIONS
    assert set(task.charted) <= set(record.DEFINITIONS)
    assert {"sample", "patient", "system"} <= set(task.schema.names)


@pytest.mark.parametrize("name", EVALUATIONS)
def test_no_task_depends_on_the_others(name: str) -> None:
    """The table names all tasks, so whoever imports it depends on all of them."""
    room = EVALUATIONS[name].rpartition(".")[0]
    reached = code.closure(*code_modules(f"evaluate@{name}"))
    assert EVALUATIONS[name] in reached
    assert task_table.__name__ not in reached
    others = {module.rpartition(".")[0] for module in EVALUATIONS.values()} - {room}
    assert not [module for module in reached if module.rpartition(".")[0] in others]


def test_the_firewall_is_stale_whenever_other_images_are_tested(repository: Path) -> None:
    """Each parameter that a reader of ``held_out`` is given stands in dvc.yaml."""
    source = (repository / "lapvqa/firewall/held_out.py").read_text()
    stated = set(graph(repository)["firewall"]["params"])
    for section, task in re.findall(r"section = (params\.(\w+))", source):
        start = source.index(f"section = {section}")
        body = source[start : source.index("\n\n\n", start)]
        for key in re.findall(r"section\.(\w+)", body):
            if key != "uncertain":  # decides labels, not images
                assert f"evaluate.{task}.{key}" in stated


def test_no_other_file_names_a_task(repository: Path) -> None:
    named = re.compile(rf"[\"']({'|'.join(EVALUATIONS)})[\"']")
    rooms = {module.split(".")[1] for module in EVALUATIONS.values()}
    files = [
        path.relative_to(repository)
        for package in ("lapvqa", "tasks", "flows")
        for path in (repository / package).rglob("*.py")
        if named.search(path.read_text())
    ]
    assert [path for path in files if path.parts[1] not in rooms] == [
        Path("lapvqa/evaluation/task_table.py")
    ]


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="there is no task 'probe_chexprt'") as caught:
        task_table.find("probe_chexprt")
    assert "did you mean probe_chexpert?" in str(caught.value)
