"""FLOPs are those that torch counts; memory is this process's own."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from lapvqa.params import ModelParams, PretrainParams
from lapvqa.pretrain.distributed import World
from lapvqa.pretrain.flops import encoder_flops, patch_flops
from lapvqa.pretrain.inputs import Inputs
from lapvqa.pretrain.model import initial_model
from lapvqa.pretrain.monitor import flops_per_step, measured_peak, peak_memory
from lapvqa.pretrain.objectives.table import OBJECTIVES

SMALL = ModelParams(
    image_size=64, patch_size=16, width=64, depth=2, heads=2, pooled_grid=3, decoder_width=96,
    decoder_depth=1, decoder_heads=2, text_width=48, text_depth=2, text_heads=2, embed_dim=64,
)  # fmt: skip
MEDIUM = ModelParams(
    image_size=224, patch_size=16, width=384, depth=12, heads=6, pooled_grid=7, decoder_width=256,
    decoder_depth=4, decoder_heads=4, text_width=256, text_depth=4, text_heads=4, embed_dim=256,
)  # fmt: skip
CPU = torch.device("cpu")


def counted(params: PretrainParams, *, length: int, targets: int) -> int:
    """Return what torch counts in the real backward pass of an objective, on fake tensors."""
    rows, sizes = params.batch_size, params.model
    patches = (sizes.image_size // sizes.patch_size) ** 2
    kept = round(params.keep_patches * patches)
    # Flash attention for CPUs is none of what FlopCounterMode knows; plain products are.
    with FakeTensorMode(), sdpa_kernel(SDPBackend.MATH):
        model = initial_model(sizes, seed=0, objective=params.objective).train()
        kind = OBJECTIVES[params.objective]
        objective = kind(model, params, torch.zeros(50257), World(), "ddp", CPU)
        inputs = Inputs(
            images=torch.empty(rows, 1, sizes.image_size, sizes.image_size),
            tokens=torch.zeros(rows, length, dtype=torch.int64),
            valid=torch.ones(rows, length, dtype=torch.bool),
            places=torch.zeros(targets, dtype=torch.int64),
            targets=torch.zeros(targets, dtype=torch.int64),
            groups=torch.zeros(rows, dtype=torch.int64),
            keep=None if kept == patches else torch.zeros(rows, kept, dtype=torch.int64),
        )
        with FlopCounterMode(display=False) as counter:
            objective.backward([inputs], targets)
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("objective", "sizes", "keep_patches"),
    [
        *((name, SMALL, share) for name in OBJECTIVES for share in (1.0, 0.5)),
        *((name, ModelParams(), 1.0) for name in ("captioning", "sigmoid", "coca")),
        ("contrastive", MEDIUM, 0.5),
    ],
)
def test_flops_are_those_that_torch_counts(
    objective: str, sizes: ModelParams, keep_patches: float
) -> None:
    params = PretrainParams(
        model=sizes, objective=objective, epochs=1, batch_size=4, lr=1e-3, keep_patches=keep_patches
    )
    found = flops_per_step(params, images=4, positions=4 * 100, targets=230, vocabulary=50257)
    assert found == pytest.approx(counted(params, length=100, targets=230), rel=0.01)


def test_an_image_through_vit_l_14_is_493_gflop() -> None:
    """Each known figure is arithmetic: 24 x (24 N d^2 + 4 N^2 d), N = 729 + 1, d = 1024."""
    params = PretrainParams(epochs=1, batch_size=1, lr=1e-3)
    assert patch_flops(params.model) == pytest.approx(0.293e9, rel=0.002)  # of one channel
    # 440.29 + 52.24 without a class token, which adds 1 / 729 and twice that.
    assert encoder_flops(params) == pytest.approx(492.53e9, rel=0.003)
    assert encoder_flops(params) > 492.53e9


def test_peak_memory_is_not_that_of_the_process_that_started_this_one() -> None:
    """ru_maxrss is handed down through fork and exec, and so would a small process look large."""

    def peak_of_a_child() -> int:
        code = "from lapvqa.pretrain.monitor import peak_memory as p; import torch; "
        code += "print(p(torch.device('cpu')))"
        command = [sys.executable, "-c", code]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    alone = peak_of_a_child()  # builds of torch differ: 0.3 GB, 0.6 GB
    ballast = bytearray(b"x") * (alone + 400 * 2**20)
    assert peak_memory(CPU) > len(ballast)
    assert peak_of_a_child() < alone + 200 * 2**20


class _Products(TorchDispatchMode):
    """Keeps what is multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.operands: list[torch.Tensor] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.mm.default:
            self.operands += args
        return func(*args, **(kwargs or {}))


def test_the_peak_is_measured_on_random_numbers_that_cost_a_training_none_of_its_own() -> None:
    """Constant ones draw less power, so that a GPU clocks higher than any training sees."""
    before = torch.get_rng_state()
    with _Products() as seen:
        assert measured_peak(CPU, repeats=2) > 0
    assert torch.equal(torch.get_rng_state(), before)
    assert len(seen.operands) == 4
    for operand in seen.operands:
        assert operand.mean().abs() < 0.01
        assert operand.std() == pytest.approx(1, abs=0.01)
    left, right = seen.operands[:2]
    assert not torch.equal(left, right)
