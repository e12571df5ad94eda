"""How much memory pretraining takes, found by taking its step with tensors that have none.

The model, the objective, the optimizer and the clipping are those of training, run on fake tensors
under a ``Ledger``; a change of their code changes the plan. A GPU is simulated on the CPU's fake
tensors with bf16 autocast: the casts, and what attention keeps for the backward pass, are the same.
Not seen: CUDA's context and the holes between blocks (``usable`` allows for them), what
torch.compile saves, and FSDP, for which the plan is that of DDP.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lapvqa.images import transforms
from lapvqa.networks.decoder import GPT2_VOCABULARY
from lapvqa.params import PretrainParams
from lapvqa.pretrain.distributed import World
from lapvqa.pretrain.inputs import Inputs
from lapvqa.pretrain.model import CaptioningModel, ContrastiveModel, initial_model
from lapvqa.pretrain.objective import Captioning, Objective, Pairs
from lapvqa.pretrain.optimizer import build_optimizer
from lapvqa.pretrain.tensor_ledger import Ledger, Workspace
from lapvqa.schemas import STORED_SIZE

# Assumed, not measured: context and libraries, and the share that lies in holes between blocks.
_CONTEXT, _HOLES = 1e9, 0.05
_CUDA_BLOCK = 512  # bytes that torch's CUDA allocator rounds up to
_COPIES_OF_LOGITS = 6  # both ways: the product, the masked, its log-softmax
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
class Work:
    """What decides the memory besides the parameters.

    ``length`` is of the longest report of a micro-batch, ``targets`` how many tokens a report has
    to predict on average, ``vocabulary`` how many rows the table has. ``on_gpu``: with autocast
    to bfloat16, and blocks as CUDA's allocator makes them.
    """

    length: int
    targets: float
    vocabulary: int = GPT2_VOCABULARY
    processes: int = 1
    on_gpu: bool = True


@dataclass(frozen=True)
class Forecast:
    """The peak in bytes, what it consists of, and when it comes.

    ``rows`` are the images of a micro-batch.
    """

    rows: int
    accumulate: int
    checkpointing: bool
    peak: int
    parts: dict[str, int]
    moment: str


@cache
def forecast(params: PretrainParams, work: Work) -> Forecast:
    """Return what pretraining with ``params`` takes at its peak on each process."""
    ledger = Ledger(
        granularity=_CUDA_BLOCK if work.on_gpu else 1,
        workspaces=_CUDA_WORKSPACES if work.on_gpu else _WORKSPACES,
    )
    rows = params.batch_size // (params.accumulate * work.processes)
    moments: dict[str, tuple[int, dict[str, int]]] = {}
    with FakeTensorMode(allow_non_fake_inputs=True), ledger:
        step = _Step(params, work, ledger)
        if not work.on_gpu:  # which gets a model that was made on the CPU, its table already cut
            moments["making the model"] = (ledger.peak, ledger.at_peak)
        step.make_optimizer_state()
        for moment, act, count in (
            ("step", step.take, rows),
            ("validation", step.validate, rows),
            ("preparing images", step.prepare, rows),
        ):
            ledger.start_again()
            act(count)
            moments[moment] = (ledger.peak, ledger.at_peak)
    moment, (peak, parts) = max(moments.items(), key=lambda one: one[1][0])
    constant = _beside_the_step(step.model, params, work)
    return Forecast(
        rows, params.accumulate, params.checkpoint_activations,
        peak + sum(constant.values()), {**parts, **constant}, moment,
    )  # fmt: skip


def that_fit(params: PretrainParams, work: Work, room: float) -> list[Forecast]:
    """Return the largest micro-batch that fits into ``room`` bytes, without and with checkpointing.

    Fewer than two where not even one image fits.
    """
    found = []
    for checkpointing in (False, True):
        chosen = params.model_copy(update={"checkpoint_activations": checkpointing})
        best = _largest(chosen, work, room)
        if best is not None:
            found.append(best)
    return found


def smallest(params: PretrainParams, work: Work) -> Forecast:
    """Return what one image at a time with checkpointing takes: nothing takes less."""
    cut = {"accumulate": params.batch_size // work.processes, "checkpoint_activations": True}
    return forecast(params.model_copy(update=cut), work)


def usable(memory: float) -> float:
    """Return how many bytes of a card's ``memory`` tensors can have."""
    return without_holes(memory - _CONTEXT)


def without_holes(room: float) -> float:
    """Return how many of ``room`` bytes tensors can have."""
    return room * (1 - _HOLES)


def _largest(params: PretrainParams, work: Work, room: float) -> Forecast | None:
    """Search by halves: a smaller micro-batch never takes more."""
    rows = params.batch_size // work.processes
    cuts = [count for count in range(1, rows + 1) if rows % count == 0]
    low, high, best = 0, len(cuts), None
    while low < high:
        middle = (low + high) // 2
        tried = forecast(params.model_copy(update={"accumulate": cuts[middle]}), work)
        if tried.peak <= room:
            best, high = tried, middle
        else:
            low = middle + 1
    return best


class _Step:
    """A training step on fake tensors; the ledger counts and must be on."""

    def __init__(self, params: PretrainParams, work: Work, ledger: Ledger) -> None:
        self.params, self.work, self.ledger = params, work, ledger
        with ledger.labelled("weights"):
            self.model = initial_model(params.model, seed=0, objective=params.objective)
            self._cut_vocabulary()
        self.model.vision_encoder.checkpointing = params.checkpoint_activations
        self.objective = self._objective()
        self.objective.task = _Autocast(self.objective.task, enabled=work.on_gpu)
        self.optimizer = build_optimizer(self.model, params)
        self._watch()

    def _cut_vocabulary(self) -> None:
        _, table = self.model.token_table
        kept = torch.empty(self.work.vocabulary, table.weight.shape[1])
        table.weight, table.num_embeddings = nn.Parameter(kept), len(kept)

    def _objective(self) -> Objective:
        world, device = World(), torch.device("cpu")
        if isinstance(self.model, CaptioningModel):
            log_count = torch.empty(self.work.vocabulary)
            return Captioning(self.model, log_count, world, "ddp", device)
        return Pairs(self.model, self.params.objective, world, "ddp", device)

    def _watch(self) -> None:
        """Let the ledger know what is computed."""
        model = self.model
        text = model.decoder if isinstance(model, CaptioningModel) else model.text_encoder
        for module, label in ((self.model.vision_encoder, "encoder"), (text, "decoder")):
            module.register_forward_pre_hook(partial(self._now, label))
            module.register_forward_hook(partial(self._now, "head and loss"))
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                hook = self._is_gradient
                parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]

    def _now(self, label: str, *_: Any) -> None:
        self.ledger.label = label if torch.is_grad_enabled() else "forward pass"

    def _is_gradient(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self.ledger.relabel([parameter.grad], "gradients")

    def make_optimizer_state(self) -> None:
        """Do what the first step of a run does before all others."""
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.empty_like(parameter)
        with self.ledger.labelled("optimizer states"):
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    def take(self, rows: int) -> None:
        """Do what ``Trainer.take_step`` does."""
        self.model.train()
        # More than two micro-batches differ in nothing but the inputs that wait.
        micro = [self._inputs(rows) for _ in range(min(self.params.accumulate, 2))]
        waiting = [self._inputs(rows) for _ in range(self.params.accumulate - len(micro))]
        with self.ledger.labelled("head and loss"):
            self.objective.backward(micro, rows)
        del micro, waiting
        with self.ledger.labelled("clipping"):
            nn.utils.clip_grad_norm_(self.model.parameters(), self.params.grad_clip)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def validate(self, rows: int) -> None:
        """Do what ``Trainer.validate`` does with a batch."""
        self.model.eval()
        inputs = replace(self._inputs(rows), keep=None)
        with self.ledger.labelled("forward pass"):
            self.objective.measure(inputs)

    def prepare(self, rows: int) -> None:
        """Do what ``Preparer.training`` does with the last micro-batch of a step."""
        made = [self._inputs(rows) for _ in range(self.params.accumulate - 1)]
        with self.ledger.labelled("inputs"):
            # Not on the CPU, where numpy has the memory of images: as many bytes, not counted.
            stored = torch.empty(rows, STORED_SIZE, STORED_SIZE, dtype=torch.uint8, device="meta")
            images = transforms.to_input(stored, self.params.model.image_size)
            if self.params.augment:
                transforms.augment(images, seed=0, epoch=0, indices=range(rows))
        del made

    def _inputs(self, rows: int) -> Inputs:
        sizes, length = self.params.model, self.work.length
        targets = max(1, round(rows * self.work.targets))
        patches = (sizes.image_size // sizes.patch_size) ** 2
        kept = max(1, round(self.params.keep_patches * patches))
        with self.ledger.labelled("inputs"):
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
    """What ``device.computing`` does on a GPU, as far as memory goes, around a module."""

    def __init__(self, task: nn.Module, *, enabled: bool) -> None:
        super().__init__()
        self.task, self.enabled = task, enabled

    def forward(self, *arguments: Any) -> Any:
        """Call the module."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.enabled):
            return self.task(*arguments)


def _beside_the_step(
    model: CaptioningModel | ContrastiveModel, params: PretrainParams, work: Work
) -> dict[str, int]:
    """Return what several processes need besides."""
    if work.processes == 1:
        return {}
    beside = {"gradients on their way": sum(one.nbytes for one in model.parameters())}
    if params.objective == "contrastive":
        rows = params.batch_size // work.processes
        others = params.batch_size - rows
        beside["logits of other processes"] = _COPIES_OF_LOGITS * 4 * rows * others
    return beside
