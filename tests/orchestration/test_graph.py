"""The graph read without DVC is DVC's own, however dvc.yaml orders its stages."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
from dvc.repo import Repo

from lapvqa.params import read_yaml
from lapvqa.project import Project
from lapvqa.uptodate.stagefile import UnsupportedStagefileError, declared
from tasks.dvc_repository import load_graph, read_graph


@pytest.fixture(scope="module")
def project(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("graph")
    Repo.init(str(root), no_scm=True).close()
    shutil.copy(repository / "params.yaml", root)
    return Project(root)


@pytest.mark.parametrize("seed", range(4))
def test_the_graph_is_dvcs(repository: Path, project: Project, seed: int) -> None:
    stages = list(read_yaml(repository / "dvc.yaml")["stages"].items())
    if seed:
        random.Random(seed).shuffle(stages)
    project.dvc_yaml.write_text(json.dumps({"stages": dict(stages)}))  # which is YAML too
    assert read_graph(project) == load_graph(project.root)


def test_what_cannot_be_read_without_dvc_is_read_by_it(repository: Path, project: Project) -> None:
    stages = read_yaml(repository / "dvc.yaml")["stages"]
    stages["report"]["wdir"] = "."
    project.dvc_yaml.write_text(json.dumps({"stages": stages}))
    with pytest.raises(UnsupportedStagefileError):
        declared(project)
    assert read_graph(project) == load_graph(project.root)
    assert read_graph(project)[-1].name == "report"
