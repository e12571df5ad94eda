"""No step waits for the device: draws are made ahead, the loss is read late."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import real_step
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lapvqa.params import PretrainParams
from lapvqa.pretrain import guard, inputs
from lapvqa.pretrain.guard import Guard
from lapvqa.pretrain.inputs import padded_length
from lapvqa.pretrain.objectives.table import OBJECTIVES
from lapvqa.recorder import Recorder

CPU = torch.device("cpu")
_aten = torch.ops.aten
WAITS = {
    _aten._local_scalar_dense.default, _aten.nonzero.default, _aten.is_nonzero.default,
    _aten.equal.default, _aten.masked_select.default, _aten.unique_dim.default,
    _aten._unique2.default, _aten.repeat_interleave.Tensor,
}  # fmt: skip
"""Operations whose result's value, or size, the host has to know: on a GPU it waits for all."""


class _Waits(TorchDispatchMode):
    """Keeps, in order, what a GPU would be waited for, and the optimizer's update."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if func in WAITS:
            self.seen.append(str(func))
        if func is _aten._fused_adamw_.default:
            self.seen.append("update")
        return made


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("objective", list(OBJECTIVES))
def test_a_step_waits_once_for_the_one_before_it(
    tmp_path: Path, params: PretrainParams, objective: str, accumulate: int, monkeypatch
) -> None:
    changed = params.model_copy(
        update={
            "objective": objective, "accumulate": accumulate, "flip": True, "keep_patches": 0.5,
            "parallel_share": 0.5,
        }
    )  # fmt: skip
    trainer = real_step.trainer(tmp_path, changed, length=6)
    steps = list(trainer.steps(0, 2))
    recorder = Recorder(tmp_path / "record.jsonl", stage="pretrain", quiet=True)
    with _Waits() as waits:
        read = guard.Numbers.read

        def noted(self: guard.Numbers) -> tuple[float, float, str | None]:
            waits.seen.append("read")
            return read(self)

        monkeypatch.setattr(guard.Numbers, "read", noted)
        for micro in steps:
            trainer.take_step(micro, recorder)
        assert [one.step for one in trainer._progress.history] == [1]
        assert [one.step for one in trainer.progress.history] == [1, 2]
    recorder.close()
    groups = len(trainer.optimizer.param_groups)
    assert waits.seen == ["update"] * groups * 2 + ["read"] * 2


def test_on_a_device_of_its_own_nothing_is_copied_that_is_waited_for(tmp_path: Path) -> None:
    """Inputs in, four numbers out, and no operation on tensors of both; coca captions, too."""
    objectives = ("coca", "sigmoid")
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("fake_gpu.py")), str(tmp_path), *objectives],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for found in json.loads(done.stdout).values():
        assert found["unlocked"] == ["images"]  # which the loader reads into such memory
        *inputs, last = found["step"]
        assert {(one[0], one[3]) for one in inputs} == {("cpu", True)}
        assert last == ["fakegpu", "cpu", 4, True]
        # An epoch's end waits, and is seen to.
        assert ["fakegpu", False] in [[one[0], one[3]] for one in found["validation"]]


def test_the_read_waits_for_the_gpu_that_computes_be_it_the_first_or_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class OnTheSecond:
        device = torch.device("cuda", 1)

        def to(self, *_: object, **__: object) -> torch.Tensor:
            return torch.zeros(4)

    recorded: list[object] = []
    event = type("Event", (), {"record": lambda _, stream=None: recorded.append(stream)})
    monkeypatch.setattr(torch.cuda, "Event", event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: ("stream", device))
    guard._on_its_way(OnTheSecond())  # type: ignore[arg-type]
    assert recorded == [("stream", torch.device("cuda", 1))]


def test_batches_are_prepared_by_the_threads_that_read_them(
    tmp_path: Path, params: PretrainParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = set()
    draw = inputs.transforms.draw_changes

    def noted(**drawn):
        names.add(threading.current_thread().name.rpartition("_")[0])
        return draw(**drawn)

    monkeypatch.setattr(inputs.transforms, "draw_changes", noted)
    trainer = real_step.trainer(tmp_path, params, length=6)
    trainer.loader.workers = 2
    for _ in trainer.steps(0, 3):
        pass
    assert names == {"loader"}


@pytest.mark.parametrize("length", [1, 64, 127, 128, 129, 192, 320, 511, 512])
def test_places_on_a_gpu_are_of_four_lengths_and_none_that_cudnn_got_wrong(length: int) -> None:
    found = padded_length(length, on_gpu=True)
    assert length <= found <= 512
    assert found % 128 == 0
    assert padded_length(length, on_gpu=False) == length


def plain_rule(losses: list[float], norms: list[float], factor: float) -> list[bool]:
    """Return which steps are skipped, as a loop says it."""
    counted: list[float] = []
    skipped = []
    for loss, norm in zip(losses, norms, strict=True):
        bad = not math.isfinite(loss) or not math.isfinite(norm)
        bad = bad or (len(counted) >= 50 and loss > factor * max(counted[-50:]))
        skipped.append(bad)
        counted += [] if bad else [loss]
    return skipped


def test_steps_are_judged_as_a_plain_loop_judges_them() -> None:
    rng = np.random.default_rng(0)
    losses = np.exp(rng.normal(0, 0.5, 300))
    losses[rng.integers(0, 300, 12)] *= 20
    losses[[3, 70]] = np.nan, np.inf
    norms = np.ones(300)
    norms[[4, 90]] = np.nan, np.inf
    expected = plain_rule(losses.tolist(), norms.tolist(), 3.0)
    assert 6 < sum(expected) < 30
    judge, found = Guard(3.0, CPU), []
    for step, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
        if step == 150:  # a new process, which has the history alone
            judge = Guard(3.0, CPU)
            before = zip(losses[:150], expected[:150], strict=True)
            judge.resume([one for one, skipped in before if not skipped])
        numbers = judge.judge(torch.tensor(loss), torch.tensor(norm))
        *read, fault = numbers.read()
        assert np.array_equal(read, [loss, norm], equal_nan=True)
        assert (fault is not None) == bool(numbers.fault)
        found.append(fault is not None)
    assert found == expected


def test_a_step_of_no_use_leaves_the_optimizer_as_it_was(
    tmp_path: Path, params: PretrainParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = real_step.trainer(tmp_path, params, length=6)
    recorder = Recorder(tmp_path / "record.jsonl", stage="pretrain", quiet=True)
    first, second, third = trainer.steps(0, 3)
    trainer.take_step(first, recorder)
    before = trainer.state()
    compute = trainer.gradients

    def spoilt(*arguments):
        loss, norm, targets = compute(*arguments)
        return loss, norm * math.nan, targets

    monkeypatch.setattr(trainer, "gradients", spoilt)
    trainer.take_step(second, recorder)
    after = trainer.state()
    for name, state in before["optimizer"].items():
        for key, value in state.items():
            assert torch.equal(value, after["optimizer"][name][key]), (name, key)
    assert all(torch.equal(after["model"][name], one) for name, one in before["model"].items())
    monkeypatch.setattr(trainer, "gradients", compute)
    trainer.take_step(third, recorder)
    assert [one.skipped for one in trainer.progress.history] == [0, 1, 0]
    moved = trainer.state()["model"]
    assert any(not torch.equal(moved[name], one) for name, one in before["model"].items())
    recorder.close()
