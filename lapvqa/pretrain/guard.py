"""Whether a step may change the weights: decided on the device, told the host a step late."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

_RECENT = 50
"""A loss is a spike by comparison with the highest of so many steps; without them, none is."""


@dataclass(frozen=True)
class Numbers:
    """A step's loss, norm and the highest loss before it, on their way to the host.

    ``fault``: 1.0 on the device where the step must not change the weights, else 0.0.
    """

    fault: Tensor
    values: Tensor
    arrived: torch.cuda.Event | None

    def read(self) -> tuple[float, float, str | None]:
        """Return loss, norm, and the fault in words; waits for the step, and for nothing else."""
        if self.arrived is not None:
            self.arrived.synchronize()
        loss, norm, highest, fault = cast("list[float]", self.values.tolist())
        if not fault:
            return loss, norm, None
        if not math.isfinite(loss):
            return loss, norm, f"the loss is {loss}"
        if not math.isfinite(norm):
            return loss, norm, f"the gradient's norm is {norm}"
        before = f"{highest:.3f} at most in {_RECENT} steps before"
        return loss, norm, f"the loss is {loss:.3f}, {before}"


class Guard:
    """Knows the losses of the last steps that counted; ``factor`` times the highest is a spike."""

    def __init__(self, factor: float, device: torch.device) -> None:
        self.factor = factor
        self.recent = torch.full((_RECENT,), math.inf, dtype=torch.float64, device=device)

    def resume(self, losses: list[float]) -> None:
        """Take the losses of all steps before, but for those that were skipped."""
        known = torch.tensor(losses[-_RECENT:], dtype=torch.float64)
        self.recent.fill_(math.inf)
        self.recent[_RECENT - len(known) :] = known.to(self.recent.device)

    def judge(self, loss: Tensor, norm: Tensor) -> Numbers:
        """Judge a step by its loss, float64, and its gradient's norm; remember it if it counts."""
        highest = self.recent.max()
        bad = ~torch.isfinite(loss) | ~torch.isfinite(norm) | (loss > self.factor * highest)
        self.recent = torch.where(bad, self.recent, torch.cat([self.recent[1:], loss.view(1)]))
        values = torch.stack([loss, norm.double(), highest, bad.double()])
        return Numbers(bad.float(), *_on_its_way(values))


def _on_its_way(values: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Start the copy to the host; return it, and what tells that it is there."""
    copy = values.to("cpu", non_blocking=True)
    if values.device.type != "cuda":
        return copy, None
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    # Of the copy's own GPU: without, it would be the first one's, where nothing is waited for.
    arrived.record(torch.cuda.current_stream(values.device))
    return copy, arrived
