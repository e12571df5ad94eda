"""What to say where memory does not suffice: which settings fit, found by ``memory``."""

from __future__ import annotations

import resource
from pathlib import Path

import torch

from lapvqa.errors import TrainingError
from lapvqa.params import PretrainParams
from lapvqa.pretrain.memory import Forecast, Work, forecast, smallest, that_fit, without_holes
from lapvqa.pretrain.trainer import Trainer

# torch has a class of its own for CUDA's allocator alone.
_WORDS = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
)


def is_lack(error: BaseException) -> bool:
    """Return whether ``error`` says that memory did not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def explain(trainer: Trainer) -> TrainingError:
    """Return an error that says what a trainer needs, what there is, and what to set.

    Its own need is small, but where even that fails it says no more than what always helps.
    """
    params, device = trainer.params, trainer.device
    rows = params.batch_size // (params.accumulate * trainer.world.size)
    what = f"out of memory on {device} with micro-batches of {rows} images"
    try:
        work, room = work_of(trainer), room_for(trainer)
        needed = forecast(params, work).peak
        return TrainingError(
            f"{what}: they take {gigabytes(needed)} at the peak, {gigabytes(room)} can be had",
            hint=advice(params, work, room),
        )
    except (MemoryError, OSError, ImportError, RuntimeError):
        return TrainingError(
            what,
            hint=f"set pretrain.accumulate to {2 * params.accumulate} (now {params.accumulate}): "
            "the same batch in smaller pieces; `lapvqa plan-memory` says what each takes",
        )


def work_of(trainer: Trainer) -> Work:
    """Return what a trainer's corpus asks for."""
    lengths = [len(pair.token_ids) - 1 for pair in trainer.corpus.train + trainer.corpus.validate]
    return Work(
        length=max(lengths),
        targets=sum(lengths) / len(lengths),
        vocabulary=len(trainer.vocabulary),
        processes=trainer.world.size,
        on_gpu=trainer.device.type == "cuda",
    )


def room_for(trainer: Trainer) -> float:
    """Return how many bytes a trainer's tensors can have on its device, with those it has."""
    if trainer.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(trainer.device)
        return without_holes(free + torch.cuda.memory_reserved(trainer.device))
    states = [value for state in trainer.optimizer.state.values() for value in state.values()]
    held = sum(tensor.nbytes for tensor in [*trainer.model.parameters(), *states])
    return without_holes(free_on_host() + held)


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


def advice(params: PretrainParams, work: Work, room: float) -> str:
    """Return which settings fit into ``room`` bytes, and what each takes."""
    now = (params.accumulate, params.checkpoint_activations)
    found = that_fit(params, work, room)
    if not found:
        least = smallest(params, work)
        return (
            f"one image at a time with checkpoint_activations takes {gigabytes(least.peak)}: "
            "a smaller pretrain.model, or a device with more memory"
        )
    others = [one for one in found if (one.accumulate, one.checkpointing) != now]
    if len(others) < len(found):
        return "these settings should fit: see what else uses the memory, then run again"
    return "set " + "; or ".join(_setting(one, params) for one in others)


def _setting(one: Forecast, params: PretrainParams) -> str:
    parts = []
    if one.accumulate != params.accumulate:
        parts.append(f"pretrain.accumulate to {one.accumulate} (now {params.accumulate})")
    if one.checkpointing != params.checkpoint_activations:
        parts.append(f"pretrain.checkpoint_activations to {str(one.checkpointing).lower()}")
    cost = ", for a forward pass more" if one.checkpointing else ""
    return f"{' and '.join(parts)}: micro-batches of {one.rows} take {gigabytes(one.peak)}{cost}"


def gigabytes(size: float) -> str:
    """Return bytes for a person: "1.23 GB", "93.2 GB"."""
    return f"{size / 1e9:.2f} GB" if size < 1e10 else f"{size / 1e9:.1f} GB"
