"""The bytes that torch allocates, by purpose: counted on real tensors or fake ones."""

from __future__ import annotations

import contextlib
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

Workspace = Callable[..., int]
"""Bytes that a kernel takes and gives back within one call, from the call's arguments."""


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
