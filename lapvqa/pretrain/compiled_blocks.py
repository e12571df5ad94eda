"""What a compiled block keeps for its backward pass, found without compiling or computing it.

torch.compile divides a block into forward and backward by a cut of least size through their common
graph (AOTAutograd's partitioner, the same for every device): what crosses the cut is kept. The
graph is made from fake tensors, so no compiler is needed and no memory taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch._aot_autograd.utils import make_boxed_func
from torch._functorch.aot_autograd import aot_function
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor.decomposition import select_decomp_table
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._pytree import tree_map_only

Context = Callable[[], Any]
"""Makes the context that the block is computed in, such as autocast."""


@dataclass(frozen=True)
class Like:
    """A tensor as far as its bytes go: it keeps nothing, and nobody counts it."""

    shape: torch.Size
    dtype: torch.dtype
    requires_grad: bool

    @classmethod
    def of(cls, tensor: Tensor) -> Like:
        """Return what ``tensor`` is like."""
        return cls(tensor.shape, tensor.dtype, tensor.requires_grad)


def kept(block: nn.Module, arguments: Sequence[Any], context: Context, *, compiled: bool) -> int:
    """Return the bytes that stay for the backward pass, the block's weights left out.

    ``arguments``: of ``forward``, tensors or what they are like.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        inputs = tree_map_only((Tensor, Like), _empty, list(arguments))
        weights = {name: _empty(one) for name, one in block.named_parameters()}
        weights |= {name: _empty(one) for name, one in block.named_buffers()}
        find = _kept_compiled if compiled else _kept_eagerly
        tensors = find(block, inputs, weights, context)
    ours = {_storage(one) for one in weights.values()}
    found = {_storage(one): one.untyped_storage().nbytes() for one in tensors}
    return sum(size for storage, size in found.items() if storage not in ours)


def _empty(tensor: Tensor | Like) -> Tensor:
    made = torch.empty(tensor.shape, dtype=tensor.dtype)
    return made.requires_grad_(tensor.requires_grad)


def _as_it_stands(gm: torch.fx.GraphModule, example_inputs: Sequence[Any]) -> Any:
    return make_boxed_func(gm.forward)


def _storage(tensor: Tensor) -> int:
    key: int = tensor.untyped_storage()._cdata
    return key


def _kept_eagerly(
    block: nn.Module, inputs: list[Any], weights: Mapping[str, Tensor], context: Context
) -> list[Tensor]:
    tensors: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), context():
        functional_call(block, dict(weights), tuple(inputs))
    return tensors


def _kept_compiled(
    block: nn.Module, inputs: list[Any], weights: Mapping[str, Tensor], context: Context
) -> list[Tensor]:
    crossing: list[Tensor] = []

    def forward(*given: Any) -> Tensor:
        own = dict(zip(weights, given[: len(weights)], strict=True))
        with context():
            result: Tensor = functional_call(block, own, given[len(weights) :])
        return result

    def note(gm: torch.fx.GraphModule, example_inputs: Sequence[Any]) -> Any:
        """Run the forward half as it stands, and note what it hands to the backward half."""

        def run(*values: Any) -> Any:
            handed = gm.forward(*values)
            crossing.extend(one for one in handed[1:] if isinstance(one, Tensor))
            return handed

        return make_boxed_func(run)

    aot_function(
        forward,
        fw_compiler=note,
        bw_compiler=_as_it_stands,
        partition_fn=min_cut_rematerialization_partition,
        decompositions=select_decomp_table(),
    )(*weights.values(), *inputs)
    return crossing
