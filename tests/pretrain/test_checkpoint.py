"""States are whole or do not count; the schedule is a function of the step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lapvqa.networks.weights import serialise
from lapvqa.params import PretrainParams
from lapvqa.pretrain.checkpoint import Checkpoints, prune_runs
from lapvqa.pretrain.model import initial_model
from lapvqa.pretrain.optimizer import build_optimizer, learning_rate


def saved(folder: Path, steps: int = 3) -> Checkpoints:
    checkpoints = Checkpoints(folder)
    for step in range(1, steps + 1):
        checkpoints.save(step, {"step": step, "weights": torch.full((4,), float(step))})
    checkpoints.wait()
    return checkpoints


def test_the_newest_state_comes_back_and_two_stay(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path)
    state = checkpoints.newest()
    assert state is not None
    assert state["step"] == 3
    assert state["weights"].tolist() == [3.0] * 4
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "state-000000002.json", "state-000000002.pt",
        "state-000000003.json", "state-000000003.pt",
    ]  # fmt: skip


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "manifest", "unfinished"])
def test_a_damaged_newest_state_falls_back(tmp_path: Path, damage: str) -> None:
    checkpoints = saved(tmp_path)
    path = tmp_path / "state-000000003.pt"
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "cut":
        path.write_bytes(data[:-100])
    elif damage == "gone":
        path.unlink()
    elif damage == "manifest":
        path.with_suffix(".json").write_text("{")
    else:
        path.with_suffix(".json").unlink()
    state = checkpoints.newest()
    assert state is not None
    assert state["step"] == 2


def test_no_state_is_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "never").newest() is None


def test_bytes_do_not_depend_on_where_they_are_written() -> None:
    weights = {"a": torch.arange(10.0)}
    assert serialise(weights) == serialise({"a": torch.arange(10.0)})


def test_states_of_other_runs_are_limited(tmp_path: Path) -> None:
    for name in "abcdef":
        saved(tmp_path / name, steps=1)
    prune_runs(tmp_path, current="a")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "d", "e", "f"]


def test_rate_warms_up_then_falls_to_the_minimum(params: PretrainParams) -> None:
    params = params.model_copy(update={"lr": 1e-3, "min_lr": 1e-5, "warmup_steps": 10})
    rates = [learning_rate(step, 100, params) for step in range(100)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[9] == rates[10] == pytest.approx(1e-3)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(1e-5)


def test_norms_biases_and_embeddings_do_not_decay(params: PretrainParams) -> None:
    model = initial_model(params.model, seed=0)
    decayed, free = build_optimizer(model, params).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert decayed["weight_decay"] == params.weight_decay
    assert free["weight_decay"] == 0
    assert {names[id(parameter)].rsplit(".", 1)[1] for parameter in decayed["params"]} == {"weight"}
    free_names = {names[id(parameter)] for parameter in free["params"]}
    assert {"decoder.token_embed.weight", "decoder.pos_embed", "vision_encoder.cls_token",
            "vision_encoder.pos_embed", "vision_encoder.norm.weight"} <= free_names  # fmt: skip
    assert len(decayed["params"]) + len(free["params"]) == len(names)
