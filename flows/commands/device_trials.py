"""Three small computations that training needs, tried on a device and held against a CPU's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lapvqa.networks.device import ON_CPU, Computer
from lapvqa.networks.encoder import Block

_ALLOWED = 0.05
"""Of the largest value; bfloat16 keeps 8 bits."""

_SIDE, _TOKENS, _WIDTH, _HEADS = 256, 65, 64, 2


@dataclass(frozen=True)
class Trial:
    """One computation: how far it was from a CPU's, and how long it took, the first call included.

    ``fault``: what was wrong, empty if nothing.
    """

    name: str
    seconds: float
    apart: float
    fault: str


def trials(computer: Computer, *, compiled: bool) -> Iterator[Trial]:
    """Yield a product in bfloat16, attention and, if ``compiled``, a compiled block.

    The last two forward and backward, as training computes them.
    """
    noise = torch.Generator().manual_seed(0)
    factors = torch.randn(2, _SIDE, _SIDE, generator=noise)
    product = factors[0] @ factors[1]
    yield _tried("bfloat16 product", lambda: [_in_bfloat16(computer, factors)], [product])
    heads = torch.randn(3, 2, _HEADS, _TOKENS, _WIDTH // _HEADS, generator=noise)
    yield _tried(
        "attention, there and back", lambda: _attention(computer, heads), _attention(ON_CPU, heads)
    )
    if not compiled:
        return
    block, tokens = _block(), torch.randn(2, _TOKENS, _WIDTH, generator=noise)
    expected = _learned(ON_CPU, block, tokens)
    block.compile()
    yield _tried("compiled block, there and back",
                 lambda: _learned(computer, block, tokens), expected)  # fmt: skip


def _tried(name: str, act: Callable[[], list[Tensor]], expected: list[Tensor]) -> Trial:
    started = time.perf_counter()
    try:
        found = [tensor.float().cpu() for tensor in act()]
    except Exception as error:  # noqa: BLE001 - a broken installation raises anything
        said = str(error).strip().splitlines() or [""]
        return Trial(name, time.perf_counter() - started, 1, f"{type(error).__name__}: {said[0]}")
    seconds = time.perf_counter() - started
    apart = max(
        ((one - other).abs().max() / other.abs().max()).item()
        for one, other in zip(found, expected, strict=True)
    )
    wrong = "" if apart <= _ALLOWED else f"{apart:.1%} apart from a CPU's result"
    return Trial(name, seconds, apart, wrong)


def _in_bfloat16(computer: Computer, factors: Tensor) -> Tensor:
    left, right = computer.put(factors).bfloat16()
    product: Tensor = left @ right
    return product


def _attention(computer: Computer, heads: Tensor) -> list[Tensor]:
    """Return the output's sum and the gradients of queries, keys and values."""
    leaves = computer.put(heads).detach().clone().requires_grad_()
    q, k, v = leaves.unbind(0)
    loss = computer.learn(lambda: scaled_dot_product_attention(q, k, v).square().sum())
    assert leaves.grad is not None
    return [loss, leaves.grad]


def _block() -> Block:
    block = Block(_WIDTH, _HEADS)
    noise = torch.Generator().manual_seed(1)
    for parameter in block.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.05, generator=noise)
        else:
            nn.init.zeros_(parameter)
    return block


def _learned(computer: Computer, block: Block, tokens: Tensor) -> list[Tensor]:
    """Return the loss of a block and the gradient of its tokens."""
    block.to(computer.device)
    leaf = computer.put(tokens).detach().clone().requires_grad_()
    loss = computer.learn(lambda: block(leaf).square().sum())
    assert leaf.grad is not None
    return [loss, leaf.grad]
