"""Where and how torch computes: device, precision, attention, threads, batches, reading ahead.

What a stage computes goes through a ``Computer``; training, which owns its loop, through the parts
of which one is made.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lapvqa.errors import ConfigError
from lapvqa.machine import Machine
from lapvqa.networks.unusable_gpu import refuse_unusable_gpu
from lapvqa.params import Attention, ComputingParams
from lapvqa.runtime import compiler

T = TypeVar("T")

_BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION, "math": SDPBackend.MATH,
}  # fmt: skip
_ON_CPU = ("auto", "flash", "math")

NO_COMPILER = "install gcc and g++, or set pretrain.compile to false"


def choose_device(machine: Machine, local_rank: int = 0) -> torch.device:
    """Return the device of local.yaml; ``auto`` is a GPU if there is one.

    Of several processes on a machine each takes the GPU of its ``local_rank``. Raises ConfigError
    for a device that this machine lacks, or for a GPU that torch cannot use: silently, a training
    of days would become one of months.
    """
    if machine.device == "auto":
        if not torch.cuda.is_available():
            refuse_unusable_gpu()
            return torch.device("cpu")
        return _own_gpu(torch.device("cuda"), machine, local_rank)
    if machine.training.processes > 1 and ":" in machine.device:
        raise ConfigError(
            f"local.yaml: device is {machine.device!r}, but each of training.processes "
            f"({machine.training.processes}) needs a GPU of its own",
            hint="set device: cuda; CUDA_VISIBLE_DEVICES says which ones there are",
        )
    try:
        device = _own_gpu(torch.device(machine.device), machine, local_rank)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        if machine.device.startswith("cuda") and not torch.cuda.is_available():
            refuse_unusable_gpu()
        raise ConfigError(
            f"local.yaml: device is {machine.device!r}; torch cannot use it here",
            hint="set device: auto, cpu or cuda",
        ) from error
    return device


def _own_gpu(device: torch.device, machine: Machine, local_rank: int) -> torch.device:
    """Return the GPU of one of several processes, where ``device`` names none of them."""
    if str(device) == "cuda" and machine.training.processes > 1:
        return torch.device("cuda", local_rank)
    return device


def make_deterministic(*, threads: int, exact: bool = True) -> None:
    """Make equal inputs give equal bits on ``threads`` CPU threads; another number differs.

    With ``exact`` false a GPU may use faster kernels, which sum in any order. What is compiled
    needs ``compile_deterministically`` besides.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its start
    # use_deterministic_algorithms sets the same and imports the compiler, for a second and more.
    torch.set_deterministic_debug_mode("error" if exact else "default")
    # Otherwise torch fills uninitialised memory; nothing here reads what it has not written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_num_threads(threads)


def compile_deterministically() -> None:
    """Have the compiler's kernels be as exact as ``make_deterministic`` has all others be."""
    torch.use_deterministic_algorithms(torch.are_deterministic_algorithms_enabled())


def require_compiler(device: torch.device) -> None:
    """Raise ConfigError where torch.compile would fail for want of a compiler."""
    for_gpu = device.type == "cuda"
    if compiler(for_gpu=for_gpu) is None:
        raise ConfigError(
            f"pretrain.compile is true, and this machine has no {'C' if for_gpu else 'C++'} "
            "compiler, with which torch builds its kernels",
            hint=NO_COMPILER,
        )


def check_attention(attention: Attention, device: torch.device, *, masked: bool = False) -> None:
    """Raise ConfigError for a backend that cannot do what is asked of it.

    Torch would end with "No available kernel" at the first attention: a GPU's flash has no masks,
    and cuDNN none where sums have to have one order.
    """
    if device.type == "cpu" and attention not in _ON_CPU:
        raise ConfigError(
            f"computing.attention is {attention}, which computes on a GPU alone; this is a CPU",
            hint=f"set computing.attention to one of {', '.join(_ON_CPU)}",
        )
    if attention == "flash" and masked and device.type == "cuda":
        raise ConfigError(
            "computing.attention is flash, which has no masks on a GPU; this objective needs one",
            hint="set computing.attention to auto or efficient",
        )
    if attention == "cudnn" and torch.are_deterministic_algorithms_enabled():
        raise ConfigError(
            "computing.attention is cudnn, which sums in any order; pretrain.deterministic asks "
            "for equal bits",
            hint="set pretrain.deterministic to false, or computing.attention to flash",
        )


@contextlib.contextmanager
def attention_by(attention: Attention) -> Iterator[None]:
    """Compute attention by one backend; ``auto`` leaves it to torch.

    Torch's own order knows which backend is wrong for which lengths and versions; naming a list of
    backends overrides that. The backward pass belongs inside: a block that is recomputed there
    computes its attention again.
    """
    if attention == "auto":
        yield
        return
    with sdpa_kernel(_BACKENDS[attention]):
        yield


def precision_on(device: torch.device) -> torch.dtype:
    """Return what products are computed in: bfloat16 on a GPU, float32 on a CPU, where bf16 crawls.

    Weights, sums and losses stay float32 on both.
    """
    return torch.bfloat16 if device.type == "cuda" else torch.float32


@contextlib.contextmanager
def mixed_precision(device: torch.device) -> Iterator[None]:
    """Compute by autocast in the device's precision; around a forward pass, not the backward."""
    precision = precision_on(device)
    if precision == torch.float32:
        yield
        return
    with torch.autocast(device.type, dtype=precision):
        yield


@dataclass(frozen=True)
class Computer:
    """A device, and how it computes."""

    device: torch.device
    attention: Attention = "auto"

    @contextlib.contextmanager
    def inference(self) -> Iterator[None]:
        """Compute without gradients."""
        with torch.no_grad(), attention_by(self.attention), mixed_precision(self.device):
            yield

    def learn(self, loss: Callable[[], Tensor]) -> Tensor:
        """Compute a loss and add its gradients; return it, detached.

        One that is not finite gives no gradients: whoever asked has to look.
        """
        with attention_by(self.attention):
            with mixed_precision(self.device):
                value = loss()
            if bool(value.isfinite()):
                torch.autograd.backward(value)
        return value.detach()

    @contextlib.contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """Draw from ``seed`` on; afterwards torch's generators are what they were.

        Of all GPUs that of this computer alone: torch warns of looking at several.
        """
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield

    def put(self, values: NDArray[Any] | Tensor) -> Tensor:
        """Return values on the device; the copy is not waited for."""
        return self.pinned(values).to(self.device, non_blocking=True)

    def ahead(self, read: Callable[[T], NDArray[Any]], parts: Iterable[T]) -> Generator[Tensor]:
        """Yield what ``read`` returns for each part, on the device; the next is read meanwhile.

        An error in reading is raised when its part's turn comes. Closing the generator ends the
        thread.
        """
        waiting: deque[Future[Tensor]] = deque()
        pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        try:
            for part in parts:
                waiting.append(pool.submit(self._read, read, part))
                if len(waiting) > 1:
                    yield self.put(waiting.popleft().result())
            while waiting:
                yield self.put(waiting.popleft().result())
        finally:
            pool.shutdown(cancel_futures=True)

    def _read(self, read: Callable[[T], NDArray[Any]], part: T) -> Tensor:
        return self.pinned(read(part))

    def rows(self, taken: Callable[[], float] = lambda: 0.0) -> int:
        """Return how many rows to compute at a time; of one machine always the same number.

        Bits may depend on it, so it follows from the kind of device alone: ``ROWS_ON_CPU``; on a
        GPU up to ``ROWS_ON_GPU``, a power of 2 whose rows of ``taken()`` bytes fill half of it.
        """
        if self.device.type != "cuda":
            return ROWS_ON_CPU
        memory = torch.cuda.get_device_properties(self.device).total_memory
        return rows_within(memory / 2, taken())

    def pinned(self, values: NDArray[Any] | Tensor) -> Tensor:
        """Return values in page-locked memory, if a GPU shall copy them."""
        tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
        if self.device.type != "cuda" or tensor.is_pinned() or tensor.is_cuda:
            return tensor
        return tensor.pin_memory()


ON_CPU = Computer(torch.device("cpu"))
"""For what is too small for a GPU, and for what has to have a CPU's bits."""

ROWS_ON_CPU, ROWS_ON_GPU = 32, 256


def rows_within(room: float, taken: float) -> int:
    """Return the largest power of 2 up to ``ROWS_ON_GPU`` whose rows fit into ``room``, or 1."""
    rows = ROWS_ON_GPU
    while rows > 1 and rows * taken > room:
        rows //= 2
    return rows


def open_computer(machine: Machine, computing: ComputingParams) -> Computer:
    """Return what a machine computes with; from here on equal inputs give equal bits.

    Raises ConfigError for a device that cannot be used, or whose attention cannot be had.
    """
    exact = computing.attention != "cudnn"  # of which torch has no exact kernel
    make_deterministic(threads=computing.cpu_threads, exact=exact)
    device = choose_device(machine)
    check_attention(computing.attention, device)
    return Computer(device, computing.attention)
