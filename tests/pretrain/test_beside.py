"""What benchmarks measure is what they say: a step of theirs, tiny, beside transformers' step."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest
import torch

from lapvqa.networks.device import make_deterministic
from lapvqa.networks.vocabulary import CutVocabulary
from lapvqa.params import ModelParams

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bench_train
import beside

TINY = ModelParams(
    image_size=28, patch_size=14, width=32, depth=1, heads=2, pooled_grid=2,
    decoder_width=64, decoder_depth=1, decoder_heads=2,
)  # fmt: skip


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    make_deterministic(threads=1)
    monkeypatch.setattr(bench_train, "SIZES", TINY)


def test_all_contenders_of_a_training_step_have_one_loss() -> None:
    reports = bench_train.make_reports(40)
    steps = bench_train.contenders(CutVocabulary(reports), compiled=False)
    images = torch.rand(bench_train.BATCH, 1, TINY.image_size, TINY.image_size)
    for number in range(2):
        batch = reports[number * bench_train.BATCH : (number + 1) * bench_train.BATCH]
        losses = [step(images, batch) for step in steps.values()]
        assert max(losses) - min(losses) < bench_train.TOLERANCE


def test_a_turn_of_two_versions_is_the_same_computation() -> None:
    mine, theirs, other = (hashlib.sha256() for _ in range(3))
    beside.steps_of_training()(1, mine)
    beside.steps_of_training()(1, theirs)
    beside.steps_of_training()(2, other)
    assert mine.digest() == theirs.digest() != other.digest()
