"""One path for all that evaluations compute: its precision, its batches, its reading ahead."""

from __future__ import annotations

import ast
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import nn
from watched_computing import as_on_a_gpu, calls, nothing_outside

from lapvqa.errors import ConfigError
from lapvqa.evaluation import features
from lapvqa.evaluation.image_encoder import OwnEncoder
from lapvqa.evaluation.visual_tokens import VisualTokens
from lapvqa.networks.allocation_counter import AllocationCounter
from lapvqa.networks.device import ON_CPU, ROWS_ON_GPU, rows_within
from lapvqa.params import ModelParams
from lapvqa.pretrain.model import initial_model
from lapvqa.probe.linear import fit_and_predict
from lapvqa.schemas import STORED_SIZE

SIZES = ModelParams(image_size=32, patch_size=8, width=32, depth=2, heads=2, pooled_grid=2)

OWNED = {
    "autocast", "backward", "choose_device", "cuda", "enable_grad", "inference_mode", "no_grad",
    "pin_memory", "sdpa_kernel", "set_grad_enabled", "set_num_threads",
}  # fmt: skip
"""Names that decide how something is computed; ``lapvqa.networks.device`` is their owner.

What computes a model for its numbers needs one: a device, or that no gradients are kept.
"""

BESIDE = {
    "lapvqa/networks/unusable_gpu.py": {"cuda"},  # torch's CUDA version, for an error
    "lapvqa/lineage/environment.py": {"cuda"},  # the same, for the records
    "lapvqa/networks/encoder.py": {"autocast", "no_grad"},  # off, in a norm; first weights
    "lapvqa/networks/losses.py": {"autocast"},  # off, where the loss has chosen its dtypes
    "lapvqa/networks/decoder.py": {"no_grad"},  # parts of a search for words, which the published
    "lapvqa/networks/generation.py": {"no_grad"},  # classes offer without a Computer
    "lapvqa/heads/text.py": {"no_grad"},
    "lapvqa/ad/heads.py": {"no_grad"},  # the matching within a loss
    "lapvqa/evaluation/features.py": {"no_grad"},  # counts bytes, on tensors without memory
    "lapvqa/inference/encoder.py": {"choose_device"},  # makes a Computer without a project
    "lapvqa/inference/words.py": {"choose_device"},
    "flows/commands/doctor.py": {"choose_device", "cuda"},  # tries a device, and names it
    "flows/commands/plan_memory.py": {"choose_device", "cuda"},  # asks for its memory
    "flows/commands/presets.py": {"choose_device", "cuda"},
}


def named(path: Path) -> Iterator[str]:
    text = path.read_text()
    if not any(name in text for name in OWNED):
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute):
            yield node.attr
        if isinstance(node, ast.alias):
            yield node.name


def test_nobody_else_decides_how_something_is_computed(repository: Path) -> None:
    found = {
        path.relative_to(repository).as_posix(): OWNED & set(named(path))
        for part in ("lapvqa", "tasks", "flows")
        for path in (repository / part).rglob("*.py")
        if "pretrain" not in path.parts and path.name != "device.py"
    }
    assert {place: names for place, names in found.items() if names} == BESIDE


def test_what_is_computed_beside_a_computer_is_seen_in_any_thread() -> None:
    layer, values = nn.Linear(2, 2), torch.ones(1, 2)
    with nothing_outside(), ThreadPoolExecutor(1) as pool:
        ON_CPU.learn(lambda: layer(values).sum())
        with ON_CPU.inference():
            layer(values)
            elsewhere = pool.submit(layer, values)
            with pytest.raises(AssertionError, match="Linear is computed outside"):
                elsewhere.result()
        with torch.no_grad(), pytest.raises(AssertionError, match="Linear is computed outside"):
            layer(values)


def graded_images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Cells of all brightnesses; the brighter they are together, the likelier the finding."""
    generator = np.random.default_rng(0)
    cells = generator.integers(20, 220, (count, 4, 4))
    noise = generator.normal(scale=10, size=count)
    truth = (cells.mean(axis=(1, 2)) + noise > 120).astype(np.int8)
    pixels = cells.repeat(STORED_SIZE // 4, axis=1).repeat(STORED_SIZE // 4, axis=2)
    return pixels.astype(np.uint8), truth[:, None]


def auroc_of(pixels: np.ndarray, truth: np.ndarray) -> float:
    encoder = OwnEncoder(initial_model(SIZES, seed=5).vision_encoder).eval()
    found = features.encode(encoder, ON_CPU.put(pixels), computer=ON_CPU, rows=32).astype(
        np.float64
    )
    train, validate, test = np.split(found, [200, 260])
    known = np.split(truth, [200, 260])
    probe = fit_and_predict(
        (train, known[0]), (validate, known[1]), test, c_grid=[0.01, 0.1, 1.0], workers=1
    )
    return float(roc_auc_score(known[2][:, 0], probe.scores[:, 0]))


def test_a_probe_on_a_gpus_precision_is_within_a_thousandth() -> None:
    pixels, truth = graded_images(700)
    exact = auroc_of(pixels, truth)
    with as_on_a_gpu(), calls() as seen:
        rounded = auroc_of(pixels, truth)
    assert 0.7 < exact < 0.95
    assert seen["VisionEncoder"] == seen["Linear"] == {True}
    assert rounded != exact
    assert abs(rounded - exact) <= 0.001


def test_the_gradient_of_learning_is_torchs_own() -> None:
    layer, values = nn.Linear(5, 3), torch.randn(4, 5)
    found = ON_CPU.learn(lambda: layer(values).square().sum())
    assert not found.requires_grad
    gradient = layer.weight.grad
    (expected,) = torch.autograd.grad(layer(values).square().sum(), [layer.weight])
    assert torch.equal(gradient, expected)


def test_a_loss_that_is_not_finite_gives_no_gradient() -> None:
    layer = nn.Linear(5, 3)
    assert ON_CPU.learn(lambda: layer(torch.full((1, 5), torch.inf)).sum()).isfinite() == False  # noqa: E712
    assert layer.weight.grad is None


def test_what_is_read_ahead_comes_in_order_and_one_is_read_while_another_is_used() -> None:
    read: list[int] = []
    second = threading.Event()

    def take(part: int) -> np.ndarray:
        read.append(part)
        if part == 1:
            second.set()
        return np.full(3, part)

    coming = ON_CPU.ahead(take, range(5))
    assert next(coming).tolist() == [0, 0, 0]
    assert second.wait(30)  # while nobody has asked for it
    coming.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("ahead")]
    assert [int(one[0]) for one in ON_CPU.ahead(take, range(5))] == [0, 1, 2, 3, 4]


def test_an_error_in_reading_is_raised_at_its_turn() -> None:
    def take(part: int) -> np.ndarray:
        if part == 2:
            raise OSError("gone")
        return np.zeros(1)

    coming = ON_CPU.ahead(take, range(4))
    next(coming), next(coming)
    with pytest.raises(OSError, match="gone"):
        next(coming)


@given(st.floats(0, 1e12), st.floats(0, 1e9))
def test_rows_are_the_most_that_fit(room: float, taken: float) -> None:
    rows = rows_within(room, taken)
    assert rows & (rows - 1) == 0
    assert rows == 1 or rows * taken <= room
    assert rows == ROWS_ON_GPU or 2 * rows * taken > room


def test_the_bytes_of_a_forward_pass_are_those_that_torch_takes() -> None:
    encoder = OwnEncoder(initial_model(SIZES, seed=5).vision_encoder).eval()
    with torch.no_grad(), AllocationCounter() as counter:
        encoder.patches(torch.zeros(1, STORED_SIZE, STORED_SIZE, dtype=torch.uint8))
    assert features.forward_bytes(encoder) == counter.peak > 0


@pytest.mark.parametrize("grid", [0, 1])
def test_tokens_are_the_same_bits_stored_in_any_order_or_streamed(
    tmp_path: Path, grid: int
) -> None:
    encoder = OwnEncoder(initial_model(SIZES, seed=5).vision_encoder).eval()
    pixels, _ = graded_images(7)
    names = [str(number) for number in range(7)]
    act = partial(features.encode, encoder, computer=ON_CPU, kind="pooled", rows=4, grid=grid)
    stores = [features.FeatureStore(act, tmp_path / name, ON_CPU) for name in ("a", "b")]
    stores[0].fill(names, lambda numbers: pixels[list(numbers)])
    for order in ([5, 2], range(7)):  # somebody else's images come first
        stores[1].fill([names[one] for one in order], lambda k, o=order: pixels[list(o)][list(k)])
    whole = stores[0].take(names)
    assert whole.dtype == np.float16
    assert whole.shape == (7, grid**2 or 4, 32)
    np.testing.assert_array_equal(whole, stores[1].take(names))
    streamed = act(ON_CPU.put(pixels[[6, 1]]))
    np.testing.assert_array_equal(streamed, whole[[6, 1]])


def test_cells_are_means_of_the_tokens_in_them() -> None:
    tokens = torch.arange(16.0).reshape(1, 16, 1)
    assert features.means_of_cells(tokens, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert torch.equal(features.means_of_cells(tokens, 4), tokens)
    square = torch.randn(2, 5, 7, 7)
    found = features.means_of_cells(square.flatten(2).transpose(1, 2), 3)
    pooled = torch.nn.functional.adaptive_avg_pool2d(square, 3)
    torch.testing.assert_close(found, pooled.flatten(2).transpose(1, 2))
    with pytest.raises(ConfigError, match="token_grid is 5.*\n.*at most 4"):
        features.means_of_cells(tokens, 5)


def test_expected_tokens_are_read_once_and_are_those_that_are_asked_for() -> None:
    read: list[list[int]] = []

    def take(numbers: Sequence[int]) -> np.ndarray:
        read.append(list(numbers))
        return np.array(numbers, dtype=np.float16)

    encoder = OwnEncoder(initial_model(SIZES, seed=5).vision_encoder)
    tokens = VisualTokens(encoder, take, torch.Tensor.float, ON_CPU, trained=False)
    with ThreadPoolExecutor(1) as pool:
        tokens.expect([[3, 1], [2]], pool)
        assert tokens.of([7]).tolist() == [7.0]
        assert tokens.of((3, 1)).tolist() == [3.0, 1.0]
        assert tokens.of([2]).dtype == torch.float32
        assert tokens.of([2]).tolist() == [2.0]
    assert sorted(read) == [[2], [2], [3, 1], [7]]
