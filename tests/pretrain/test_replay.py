"""A stretch computed again agrees with what was logged, and a changed log does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import SIZES, write_project
from jobs import make_job

from flows.commands.replay import execute
from lapvqa.errors import EXIT_BAD_DATA, ConfigError
from lapvqa.machine import Machine
from lapvqa.params import PretrainParams, read_yaml
from lapvqa.pretrain import history, train
from lapvqa.pretrain.replay import Replay, replay
from lapvqa.project import Project
from lapvqa.recorder import Recorder

MACHINE = Machine(workers=1, device="cpu")


@pytest.fixture(scope="module", params=["captioning", "contrastive", "sigmoid"])
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[PretrainParams, Project]:

    project = write_project(tmp_path_factory.mktemp(request.param))
    params = PretrainParams(
        objective=request.param, model=SIZES, epochs=4, batch_size=4, lr=3e-3, warmup_steps=2,
        checkpoint_every_steps=3, keep_checkpoints=4, accumulate=2, keep_patches=0.5,
    )  # fmt: skip
    recorder = Recorder(project.record("pretrain"), stage="pretrain", quiet=True)
    train.run(params, make_job(project, MACHINE, recorder))
    recorder.close()
    return params, project


def again(params: PretrainParams, project: Project, first: int, last: int) -> Replay:
    recorder = Recorder(project.record("replay"), stage="replay", quiet=True)
    try:
        return replay(params, make_job(project, MACHINE, recorder), first=first, last=last)
    finally:
        recorder.close()


@pytest.mark.parametrize(("first", "last", "start"), [(1, 4, 0), (17, 20, 15), (20, 20, 18)])
def test_the_logged_losses_come_again(
    trained: tuple[PretrainParams, Project], first: int, last: int, start: int
) -> None:
    params, project = trained
    found = again(params, project, first, last)
    assert found.start == start
    assert [one.step for one in found.steps] == list(range(first, last + 1))
    assert not found.differing
    assert found.chain_agrees


def test_a_changed_log_is_noticed(trained: tuple[PretrainParams, Project]) -> None:
    params, project = trained
    path = project.model_dir(params.objective) / "history.csv"
    content = path.read_bytes()
    rows = history.read_csv(content)
    lines = content.decode().splitlines()
    fields = lines[2].split(",")
    fields[1] = repr(rows[1][0].loss + 1e-6)
    path.write_text("\n".join([*lines[:2], ",".join(fields), *lines[3:]]) + "\n")
    try:
        assert [one.step for one in again(params, project, 1, 3).differing] == [2]
        fields[1] = repr(rows[1][0].loss)
        fields[-1] = "0" * 16
        path.write_text("\n".join([*lines[:2], ",".join(fields), *lines[3:]]) + "\n")
        assert not again(params, project, 2, 2).chain_agrees
    finally:
        path.write_bytes(content)


def test_the_command_says_whether_they_agree(
    trained: tuple[PretrainParams, Project], capsys: pytest.CaptureFixture[str]
) -> None:
    params, project = trained
    settings = read_yaml(Path(__file__).parents[2] / "params.yaml")
    settings["pretrain"] = params.model_dump(mode="json")
    project.params.write_text(json.dumps(settings))  # JSON is YAML
    project.local.write_text("device: cpu\n")
    assert execute(project, steps="2:4") == 0
    assert "3 losses are the logged ones, bit by bit" in capsys.readouterr().out
    path = project.model_dir(params.objective) / "history.csv"
    content = path.read_bytes()
    lines = content.decode().splitlines()
    fields = lines[3].split(",")
    fields[1] = "1.5"
    path.write_text("\n".join([*lines[:3], ",".join(fields), *lines[4:]]) + "\n")
    try:
        assert execute(project, steps="2:4") == EXIT_BAD_DATA
        assert "1 of 3 losses differ" in capsys.readouterr().out
    finally:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="expected FIRST:LAST, found '3'"):
        execute(project, steps="3")


def test_another_training_is_refused(trained: tuple[PretrainParams, Project]) -> None:
    params, project = trained
    with pytest.raises(ConfigError, match="other parameters"):
        again(params.model_copy(update={"seed": 9}), project, 1, 2)
    with pytest.raises(ConfigError, match=r"within 1:20, found 3:21"):
        again(params, project, 3, 21)
    path = project.model_dir(params.objective) / "training.json"
    content = path.read_bytes()
    path.write_text(json.dumps({**json.loads(content), "data_digest": "other"}))
    with pytest.raises(ConfigError, match="other data"):
        again(params, project, 1, 2)
    path.write_bytes(content)
