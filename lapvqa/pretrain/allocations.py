"""The bytes that a training step allocates, by purpose, found without allocating them.

The model, the objective, the optimizer and the clipping are those of training, run on fake tensors
(``torch._subclasses.fake_tensor``), whose operations have shapes and no memory, under an
``AllocationCounter``; a change of their code changes the count. A GPU is simulated by fake tensors
of the CPU with bf16 autocast: the casts, and what attention keeps for the backward pass, are the
same.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from lapvqa.images import transforms
from lapvqa.networks.decoder import GPT2_VOCABULARY
from lapvqa.params import PretrainParams
from lapvqa.pretrain.distributed import World
from lapvqa.pretrain.inputs import Inputs
from lapvqa.pretrain.model import initial_model
from lapvqa.pretrain.objectives.table import OBJECTIVES
from lapvqa.pretrain.optimizer import build_optimizer
from lapvqa.schemas import STORED_SIZE

_CUDA_BLOCK = 512  # bytes that torch's CUDA allocator rounds up to
_aten = torch.ops.aten

Workspace = Callable[..., int]
"""Bytes that a kernel takes and gives back within one call, from the call's arguments."""


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
    peaks: list[Peak] = []
    with FakeTensorMode(allow_non_fake_inputs=True), counter:
        step = _FakeStep(params, workload, counter)
        if not workload.on_gpu:  # a GPU gets a model made on the CPU, its table already cut
            peaks.append(Peak(counter.peak, "making the model", counter.at_peak))
        step.make_optimizer_state()
        for moment, act in (
            ("step", step.take),
            ("validation", step.validate),
            ("preparing images", step.prepare),
        ):
            counter.reset_peak()
            act(rows)
            peaks.append(Peak(counter.peak, moment, counter.at_peak))
    parameters = sum(parameter.nbytes for parameter in step.model.parameters())
    return max(peaks, key=lambda peak: peak.size), parameters


class AllocationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of every storage from the operation that makes it until it is freed.

    ``purpose`` is what new storages are for; ``granularity`` what an allocator rounds up to.
    ``peak`` is the most bytes so far, ``at_peak`` what they were for. Works on real tensors and on
    fake ones. Kernels' own buffers are not seen, but for those given as ``workspaces``.
    """

    def __init__(
        self, *, granularity: int = 1, workspaces: Mapping[Any, Workspace] | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.granularity, self.workspaces = granularity, workspaces or {}
        self.purpose = "other"
        self.live: Counter[str] = Counter()
        self.peak = 0
        self.at_peak: dict[str, int] = {}
        self._storages: dict[int, tuple[str, int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run ``func`` and count what it made."""
        made = func(*args, **(kwargs or {}))
        purpose = self._purpose_of(func, args)
        for value in tree_iter(made):
            if isinstance(value, Tensor):
                self._add(value, purpose)
        workspace = self.workspaces.get(func)
        self._update_peak(workspace(*args) if workspace else 0)
        return made

    @contextlib.contextmanager
    def counting_as(self, purpose: str) -> Iterator[None]:
        """Count what is made meanwhile as ``purpose``."""
        before, self.purpose = self.purpose, purpose
        try:
            yield
        finally:
            self.purpose = before

    def recount(self, tensors: Iterable[Tensor], purpose: str) -> None:
        """Count these tensors' storages as ``purpose`` from now on, new ones included."""
        for tensor in tensors:
            key = tensor.untyped_storage()._cdata
            if key not in self._storages:
                self._add(tensor, purpose)
                continue
            before, size = self._storages[key]
            self._storages[key] = (purpose, size)
            self.live[before] -= size
            self.live[purpose] += size

    def reset_peak(self) -> None:
        """Forget the peak so far, not what is live."""
        self.peak, self.at_peak = 0, {}
        self._update_peak(0)

    def _purpose_of(self, func: Any, args: tuple[Any, ...]) -> str:
        """Tell apart what ``purpose`` alone does not: autocast's copies, and the backward pass."""
        if func is torch.ops.aten._to_copy.default:
            counted = self._storages.get(args[0].untyped_storage()._cdata)
            if counted is not None and counted[0] == "weights":
                return "weights in bf16"
        in_backward = torch._C._current_autograd_node() is not None
        return "backward pass" if in_backward else self.purpose

    def _add(self, tensor: Tensor, purpose: str) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._storages:
            return
        size = -(-storage.nbytes() // self.granularity) * self.granularity
        self._storages[key] = (purpose, size)
        self.live[purpose] += size
        weakref.finalize(storage, self._remove, key)

    def _remove(self, key: int) -> None:
        purpose, size = self._storages.pop(key)
        self.live[purpose] -= size

    def _update_peak(self, workspace: int) -> None:
        total = self.live.total() + workspace
        if total > self.peak:
            self.peak = total
            self.at_peak = {name: size for name, size in self.live.items() if size}
            if workspace:
                self.at_peak["workspace"] = workspace


class _FakeStep:
    """A training step on fake tensors; the counter must be on."""

    def __init__(
        self, params: PretrainParams, workload: Workload, counter: AllocationCounter
    ) -> None:
        self.params, self.workload, self.counter = params, workload, counter
        with counter.counting_as("weights"):
            self.model = initial_model(params.model, seed=0, objective=params.objective)
            self._cut_vocabulary()
        self.model.vision_encoder.checkpointing = params.checkpoint_activations
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
        model = self.model
        for module, purpose in ((model.vision_encoder, "encoder"), (model.text_side, "decoder")):
            module.register_forward_pre_hook(partial(self._enter, purpose))
            module.register_forward_hook(partial(self._enter, "head and loss"))
        for parameter in model.parameters():
            if parameter.requires_grad:
                hook = self._count_gradient
                parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]

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
        sizes, length = self.params.model, self.workload.length
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
