"""The bytes that a training step allocates, by purpose, found without allocating them.

The model, the objective, the optimizer and the clipping are those of training, run on fake tensors
(``torch._subclasses.fake_tensor``), whose operations have shapes and no memory, under an
``AllocationCounter``; a change of their code changes the count. A GPU is simulated by fake tensors
of the CPU with bf16 autocast: the casts, and what attention keeps for the backward pass, are the
same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map_only

from lapvqa.images import transforms
from lapvqa.networks.allocation_counter import AllocationCounter, Workspace
from lapvqa.networks.decoder import GPT2_VOCABULARY
from lapvqa.params import PretrainParams
from lapvqa.pretrain.compiled_blocks import Like, kept
from lapvqa.pretrain.distributed import World
from lapvqa.pretrain.inputs import Inputs, padded_length
from lapvqa.pretrain.model import initial_model
from lapvqa.pretrain.objectives.table import OBJECTIVES
from lapvqa.pretrain.optimizer import build_optimizer
from lapvqa.schemas import STORED_SIZE

_CUDA_BLOCK = 512  # bytes that torch's CUDA allocator rounds up to
_aten = torch.ops.aten


def _flash_backward(grad: Tensor, query: Tensor, *_: Any) -> int:
    """Return the bytes of the queries' gradient, which CUDA's kernels add up in float32."""
    return 4 * query.numel()


def _logsumexp(values: Tensor, *_: Any) -> int:
    """Return the bytes of the exponentials that are summed."""
    return values.nbytes


_WORKSPACES: dict[Any, Workspace] = {_aten.logsumexp.default: _logsumexp}
_CUDA_WORKSPACES: dict[Any, Workspace] = {
    **_WORKSPACES,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward.default: _flash_backward,
}


@dataclass(frozen=True)
class Workload:
    """What decides the memory besides the parameters.

    ``length``: tokens of the longest report of a micro-batch; ``targets``: how many tokens a report
    has to predict on average; ``vocabulary``: rows of the token table. ``on_gpu``: with autocast to
    bfloat16, and blocks as CUDA's allocator makes them.
    """

    length: int
    targets: float
    vocabulary: int = GPT2_VOCABULARY
    processes: int = 1
    on_gpu: bool = True


@dataclass(frozen=True)
class Peak:
    """The most bytes in use at once, the moment of it, and what they were for."""

    size: int
    moment: str
    purposes: dict[str, int]


def simulate(params: PretrainParams, workload: Workload) -> tuple[Peak, int]:
    """Take a step of training on fake tensors; return its peak and the bytes of the parameters."""
    counter = AllocationCounter(
        granularity=_CUDA_BLOCK if workload.on_gpu else 1,
        workspaces=_CUDA_WORKSPACES if workload.on_gpu else _WORKSPACES,
    )
    rows = params.batch_size // (params.accumulate * workload.processes)
    peaks: dict[str, Peak] = {}
    with FakeTensorMode(allow_non_fake_inputs=True), counter:
        step = _FakeStep(params, workload, counter)
        if not workload.on_gpu:  # a GPU gets a model made on the CPU, its table already cut
            moment = "making the model"
            peaks[moment] = Peak(counter.peak, moment, counter.at_peak)
        step.make_optimizer_state()
        for moment, act in (
            ("step", step.take),
            ("validation", step.validate),
            ("preparing images", step.prepare),
        ):
            counter.reset_peak()
            act(rows)
            peaks[moment] = Peak(counter.peak, moment, counter.at_peak)
    if params.compile and not params.checkpoint_activations:
        peaks["step"] = _compiled(peaks["step"], step.blocks, workload.on_gpu)
    parameters = sum(parameter.nbytes for parameter in step.model.parameters())
    return max(peaks.values(), key=lambda peak: peak.size), parameters


@dataclass(frozen=True)
class _Called:
    """A block as a step called it; ``purpose``: what its activations were counted as."""

    block: nn.Module
    arguments: tuple[Any, ...]
    purpose: str


def _compiled(peak: Peak, blocks: Sequence[_Called], on_gpu: bool) -> Peak:
    """Return the peak of a step whose blocks are compiled: they keep less for the backward pass."""
    context = partial(torch.autocast, "cpu", dtype=torch.bfloat16, enabled=on_gpu)
    spared: dict[Any, int] = {}
    purposes = dict(peak.purposes)
    for called in blocks:
        shapes = tuple(getattr(one, "shape", None) for one in called.arguments)
        key = (type(called.block), shapes)
        if key not in spared:
            eager, compiled = (
                kept(called.block, called.arguments, context, compiled=how) for how in (False, True)
            )
            spared[key] = max(0, eager - compiled)
        left = purposes.get(called.purpose, 0)
        purposes[called.purpose] = left - min(left, spared[key])
    size = peak.size - sum(peak.purposes.values()) + sum(purposes.values())
    return Peak(size, peak.moment, purposes)


class _FakeStep:
    """A training step on fake tensors; the counter must be on."""

    def __init__(
        self, params: PretrainParams, workload: Workload, counter: AllocationCounter
    ) -> None:
        self.params, self.workload, self.counter = params, workload, counter
        with counter.counting_as("weights"):
            self.model = initial_model(params.model, seed=0, objective=params.objective)
            self._cut_vocabulary()
        self.model.compute_by(params, torch.bfloat16 if workload.on_gpu else torch.float32)
        log_count = torch.empty(workload.vocabulary)
        self.objective = OBJECTIVES[params.objective](
            self.model, params, log_count, World(), "ddp", torch.device("cpu")
        )
        self.objective.module = _Autocast(self.objective.module, enabled=workload.on_gpu)
        self.optimizer = build_optimizer(self.model, params)
        self._watch()

    def _cut_vocabulary(self) -> None:
        _, table = self.model.token_table
        kept = torch.empty(self.workload.vocabulary, table.weight.shape[1])
        table.weight, table.num_embeddings = nn.Parameter(kept), len(kept)

    def _watch(self) -> None:
        """Tell the counter which part of the model is computed."""
        self.blocks: list[_Called] = []
        """The blocks that training compiles, as the step called them."""
        for root, purpose in self._parts():
            for module in root.modules():
                if isinstance(module, nn.ModuleList):
                    for block in module:
                        block.register_forward_pre_hook(partial(self._note_block, purpose))
        # A text side need not be called as a whole: its blocks say so too.
        of_text = [
            part for part in self.model.text_side.modules() if isinstance(part, nn.ModuleList)
        ]
        for module, purpose in (
            *self._parts(), *((block, "decoder") for blocks in of_text for block in blocks),
        ):  # fmt: skip
            module.register_forward_pre_hook(partial(self._enter, purpose))
            module.register_forward_hook(partial(self._enter, "head and loss"))
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                hook = self._count_gradient
                parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]

    def _note_block(self, purpose: str, block: nn.Module, arguments: tuple[Any, ...]) -> None:
        """Note the first call of a block: what another micro-batch's keeps is gone before."""
        if torch.is_grad_enabled() and all(one.block is not block for one in self.blocks):
            alike = tree_map_only(Tensor, Like.of, arguments)
            self.blocks.append(_Called(block, alike, purpose))

    def _parts(self) -> tuple[tuple[nn.Module, str], ...]:
        return (self.model.vision_encoder, "encoder"), (self.model.text_side, "decoder")

    def _enter(self, purpose: str, *_: Any) -> None:
        self.counter.purpose = purpose if torch.is_grad_enabled() else "forward pass"

    def _count_gradient(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self.counter.recount([parameter.grad], "gradients")

    def make_optimizer_state(self) -> None:
        """Do what only the first step of a run does."""
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.empty_like(parameter)
        with self.counter.counting_as("optimizer states"):
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    def take(self, rows: int) -> None:
        """Do what ``Trainer.take_step`` does."""
        self.model.train()
        # More than two micro-batches differ in nothing but the inputs that wait.
        micro = [self._inputs(rows) for _ in range(min(self.params.accumulate, 2))]
        waiting = [self._inputs(rows) for _ in range(self.params.accumulate - len(micro))]
        with self.counter.counting_as("head and loss"):
            self.objective.backward(micro, rows)
        del micro, waiting
        with self.counter.counting_as("clipping"):
            nn.utils.clip_grad_norm_(self.model.parameters(), self.params.grad_clip)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def validate(self, rows: int) -> None:
        """Do what ``Trainer.validate`` does with a batch."""
        self.model.eval()
        inputs = replace(self._inputs(rows), keep=None)
        with self.counter.counting_as("forward pass"):
            self.objective.measure(inputs)

    def prepare(self, rows: int) -> None:
        """Do what ``Preparer.for_training`` does with the last micro-batch of a step."""
        made = [self._inputs(rows) for _ in range(self.params.accumulate - 1)]
        with self.counter.counting_as("inputs"):
            # Not on the CPU, where numpy has the memory of images: as many bytes, not counted.
            stored = torch.empty(rows, STORED_SIZE, STORED_SIZE, dtype=torch.uint8, device="meta")
            images = transforms.to_input(stored, self.params.model.image_size)
            if self.params.augment:
                transforms.augment(images, torch.empty(rows, transforms.DRAWS, device="meta"))
        del made

    def _inputs(self, rows: int) -> Inputs:
        sizes, on_gpu = self.params.model, self.workload.on_gpu
        length = padded_length(self.workload.length, on_gpu=on_gpu)
        targets = max(1, round(rows * self.workload.targets))
        patches = (sizes.image_size // sizes.patch_size) ** 2
        kept = max(1, round(self.params.keep_patches * patches))
        with self.counter.counting_as("inputs"):
            return Inputs(
                images=torch.empty(rows, 1, sizes.image_size, sizes.image_size),
                tokens=torch.empty(rows, length, dtype=torch.int64),
                valid=torch.empty(rows, length, dtype=torch.bool),
                places=torch.empty(targets, dtype=torch.int64),
                targets=torch.empty(targets, dtype=torch.int64),
                groups=torch.empty(rows, dtype=torch.int64),
                keep=None if kept == patches else torch.empty(rows, kept, dtype=torch.int64),
            )


class _Autocast(nn.Module):
    """What ``device.mixed_precision`` does on a GPU, as far as memory goes, around a module."""

    def __init__(self, module: nn.Module, *, enabled: bool) -> None:
        super().__init__()
        self.module, self.enabled = module, enabled

    def forward(self, *arguments: Any) -> Any:
        """Call the module."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.enabled):
            return self.module(*arguments)
