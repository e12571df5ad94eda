"""How much memory pretraining takes, what fits into a device, and what to say when it runs out.

Not counted by the simulated step (``allocations``): CUDA's context and fragmentation
(``usable_on_gpu`` allows for them), what compiled blocks no longer put down between their kernels,
and FSDP, for which the plan is that of DDP.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lapvqa.errors import TrainingError
from lapvqa.params import PretrainParams
from lapvqa.pretrain.allocations import Workload, simulate
from lapvqa.pretrain.objectives.table import OBJECTIVES

if TYPE_CHECKING:
    from lapvqa.pretrain.trainer import Trainer

# Assumed, not measured: context and libraries, and the share lost to holes between blocks.
_CONTEXT, _FRAGMENTATION = 1e9, 0.05
_COPIES_OF_LOGITS = 6  # both ways: the product, the masked, its log-softmax

# torch has a class of its own for CUDA's allocator alone.
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
)


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
def forecast(params: PretrainParams, workload: Workload) -> Forecast:
    """Return what pretraining with ``params`` takes at its peak in each process."""
    peak, parameters = simulate(params, workload)
    shared = _for_several_processes(params, workload, parameters)
    return Forecast(
        rows=params.batch_size // (params.accumulate * workload.processes),
        accumulate=params.accumulate,
        checkpointing=params.checkpoint_activations,
        peak=peak.size + sum(shared.values()),
        parts={**peak.purposes, **shared},
        moment=peak.moment,
    )


def _for_several_processes(
    params: PretrainParams, workload: Workload, parameters: int
) -> dict[str, int]:
    """Return what several processes need besides the step itself."""
    if workload.processes == 1:
        return {}
    sizes = {"gradients on their way": parameters}
    if OBJECTIVES[params.objective].all_pairs_at_once:
        rows = params.batch_size // workload.processes
        others = params.batch_size - rows
        sizes["logits of other processes"] = _COPIES_OF_LOGITS * 4 * rows * others
    return sizes


def largest_that_fit(
    params: PretrainParams, workload: Workload, available: float
) -> list[Forecast]:
    """Return the largest micro-batches that fit into ``available`` bytes.

    The first is without checkpointing, the second with; one is missing if not even an image fits.
    """
    fitting = []
    for checkpointing in (False, True):
        chosen = params.model_copy(update={"checkpoint_activations": checkpointing})
        largest = _largest(chosen, workload, available)
        if largest is not None:
            fitting.append(largest)
    return fitting


def _largest(params: PretrainParams, workload: Workload, available: float) -> Forecast | None:
    """Bisect: a smaller micro-batch never takes more."""
    rows = params.batch_size // workload.processes
    cuts = [count for count in range(1, rows + 1) if rows % count == 0]
    low, high, largest = 0, len(cuts), None
    while low < high:
        middle = (low + high) // 2
        tried = forecast(params.model_copy(update={"accumulate": cuts[middle]}), workload)
        if tried.peak <= available:
            largest, high = tried, middle
        else:
            low = middle + 1
    return largest


def usable_on_gpu(memory: float) -> float:
    """Return how many bytes of a GPU's ``memory`` tensors can have."""
    return without_fragmentation(memory - _CONTEXT)


def without_fragmentation(free: float) -> float:
    """Return how many of ``free`` bytes tensors can have."""
    return free * (1 - _FRAGMENTATION)


def free_on_host() -> int:
    """Return how many bytes this process can still get: of the machine's, and within its limit."""
    free = _in_bytes("/proc/meminfo", "MemAvailable")
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return free
    return min(free, limit - _in_bytes("/proc/self/status", "VmSize"))


def _in_bytes(file: str, name: str) -> int:
    lines = Path(file).read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether ``error`` says that memory did not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def out_of_memory_error(trainer: Trainer) -> TrainingError:
    """Return an error that says what a trainer needs, what is available, and what to set.

    Finding out takes little memory; where even that fails, the error says no more than what always
    helps.
    """
    params, device = trainer.params, trainer.device
    rows = params.batch_size // (params.accumulate * trainer.world.size)
    message = f"out of memory on {device} with micro-batches of {rows} images"
    try:
        workload, available = workload_of(trainer), available_to(trainer)
        needed = forecast(params, workload).peak
        return TrainingError(
            f"{message}: they take {gigabytes(needed)} at the peak, "
            f"{gigabytes(available)} are available",
            hint=advice(params, workload, available),
        )
    except (MemoryError, OSError, ImportError, RuntimeError):
        return TrainingError(
            message,
            hint=f"set pretrain.accumulate to {2 * params.accumulate} (now {params.accumulate}): "
            "the same batch in smaller pieces; `lapvqa plan-memory` says what each takes",
        )


def workload_of(trainer: Trainer) -> Workload:
    """Return what a trainer's corpus asks for."""
    lengths = [len(pair.token_ids) - 1 for pair in trainer.corpus.train + trainer.corpus.validate]
    return Workload(
        length=max(lengths),
        targets=sum(lengths) / len(lengths),
        vocabulary=len(trainer.vocabulary),
        processes=trainer.world.size,
        on_gpu=trainer.device.type == "cuda",
    )


def available_to(trainer: Trainer) -> float:
    """Return how many bytes a trainer's tensors can have on its device, with those it has."""
    if trainer.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(trainer.device)
        return without_fragmentation(free + torch.cuda.memory_reserved(trainer.device))
    states = [value for state in trainer.optimizer.state.values() for value in state.values()]
    held = sum(tensor.nbytes for tensor in [*trainer.model.parameters(), *states])
    return without_fragmentation(free_on_host() + held)


def advice(params: PretrainParams, workload: Workload, available: float) -> str:
    """Return which settings fit into ``available`` bytes, and what each takes."""
    current = (params.accumulate, params.checkpoint_activations)
    fitting = largest_that_fit(params, workload, available)
    if not fitting:
        one_image = params.model_copy(
            update={
                "accumulate": params.batch_size // workload.processes,
                "checkpoint_activations": True,
            }
        )
        least = forecast(one_image, workload).peak
        return (
            f"one image at a time with checkpoint_activations takes {gigabytes(least)}: "
            "choose a smaller pretrain.model, or a device with more memory"
        )
    others = [plan for plan in fitting if (plan.accumulate, plan.checkpointing) != current]
    if len(others) < len(fitting):
        doubt = "; compiling takes memory too: pretrain.compile false does without"
        return "these settings should fit: see what else uses the memory, then run again" + (
            doubt if params.compile else ""
        )
    settings = [_setting(plan, params) for plan in others]
    if not params.compile:
        compiled = forecast(params.model_copy(update={"compile": True}), workload)
        if compiled.peak <= available:
            settings.insert(
                0, f"pretrain.compile to true: the same take {gigabytes(compiled.peak)}"
            )
    return "set " + "; or ".join(settings)


def _setting(plan: Forecast, params: PretrainParams) -> str:
    parts = []
    if plan.accumulate != params.accumulate:
        parts.append(f"pretrain.accumulate to {plan.accumulate} (now {params.accumulate})")
    if plan.checkpointing != params.checkpoint_activations:
        parts.append(f"pretrain.checkpoint_activations to {str(plan.checkpointing).lower()}")
    cost = ", for one more forward pass" if plan.checkpointing else ""
    return f"{' and '.join(parts)}: micro-batches of {plan.rows} take {gigabytes(plan.peak)}{cost}"


def gigabytes(size: float) -> str:
    """Return bytes for a person: "1.23 GB", "93.2 GB"."""
    return f"{size / 1e9:.2f} GB" if size < 1e10 else f"{size / 1e9:.1f} GB"
