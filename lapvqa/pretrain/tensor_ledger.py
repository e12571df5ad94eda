"""A count of the bytes of live tensors, by what they are for, and of the moment of the most.

Works on real tensors and on fake ones (``torch._subclasses.fake_tensor``), whose operations have
shapes and no memory: what a training step would need is known without needing it.
"""

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
"""Bytes that a kernel takes and returns within one call, from the call's arguments."""


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts every storage from the operation that makes it until it is freed.

    ``label`` is what new storages are for; ``granularity`` what an allocator rounds up to.
    ``peak`` is the most bytes so far, ``at_peak`` what they were for. Kernels' own buffers are
    not seen, but for those that ``workspaces`` tells.
    """

    def __init__(
        self, *, granularity: int = 1, workspaces: Mapping[Any, Workspace] | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.granularity, self.workspaces = granularity, workspaces or {}
        self.label = "other"
        self.live: Counter[str] = Counter()
        self.peak = 0
        self.at_peak: dict[str, int] = {}
        self._entries: dict[int, tuple[str, int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run ``func`` and enter what it made."""
        made = func(*args, **(kwargs or {}))
        label = self._label(func, args)
        for value in tree_iter(made):
            if isinstance(value, Tensor):
                self._enter(value, label)
        workspace = self.workspaces.get(func)
        self._compare(workspace(*args) if workspace else 0)
        return made

    @contextlib.contextmanager
    def labelled(self, label: str) -> Iterator[None]:
        """Let what is made meanwhile be for ``label``."""
        before, self.label = self.label, label
        try:
            yield
        finally:
            self.label = before

    def relabel(self, tensors: Iterable[Tensor], label: str) -> None:
        """Let these tensors' storages be for ``label``; enter those not yet known."""
        for tensor in tensors:
            key = tensor.untyped_storage()._cdata
            if key not in self._entries:
                self._enter(tensor, label)
                continue
            before, size = self._entries[key]
            self._entries[key] = (label, size)
            self.live[before] -= size
            self.live[label] += size

    def start_again(self) -> None:
        """Forget the peak so far, not what is live."""
        self.peak, self.at_peak = 0, {}
        self._compare(0)

    def _label(self, func: Any, args: tuple[Any, ...]) -> str:
        """Tell apart what ``label`` alone does not: autocast's copies, and the backward pass."""
        if func is torch.ops.aten._to_copy.default:
            entry = self._entries.get(args[0].untyped_storage()._cdata)
            if entry is not None and entry[0] == "weights":
                return "weights in bf16"
        in_backward = torch._C._current_autograd_node() is not None
        return "backward pass" if in_backward else self.label

    def _enter(self, tensor: Tensor, label: str) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._entries:
            return
        size = -(-storage.nbytes() // self.granularity) * self.granularity
        self._entries[key] = (label, size)
        self.live[label] += size
        weakref.finalize(storage, self._leave, key)

    def _leave(self, key: int) -> None:
        label, size = self._entries.pop(key)
        self.live[label] -= size

    def _compare(self, more: int) -> None:
        total = self.live.total() + more
        if total > self.peak:
            self.peak = total
            self.at_peak = {name: size for name, size in self.live.items() if size}
            if more:
                self.at_peak["workspace"] = more
