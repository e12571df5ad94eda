"""The record of each step of a training: history.csv, and the chain that makes it checkable.

The chain of a step is a digest of the chain before it and of the step's loss, bit by bit: two runs
with the same chain at a step had the same losses in every step up to it.
"""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass

import torch
from torch import Tensor

HISTORY_FILE = "history.csv"
_COLUMNS = "step,loss,val_loss,lr,epoch,skipped,chain"


@dataclass
class StepRecord:
    """One step; ``val_loss`` only where an epoch ends, ``skipped`` 1 if no weight was changed."""

    step: int
    loss: float
    lr: float
    epoch: int
    skipped: int = 0
    val_loss: float | None = None

    def numbers(self) -> list[float]:
        """Return its fields as numbers; NaN for a loss that is not there."""
        val_loss = math.nan if self.val_loss is None else self.val_loss
        return [self.step, self.loss, self.lr, self.epoch, self.skipped, val_loss]

    @classmethod
    def from_numbers(cls, numbers: list[float]) -> StepRecord:
        """Return the record of ``numbers``."""
        step, loss, lr, epoch, skipped, val_loss = numbers
        return cls(
            int(step), loss, lr, int(epoch), int(skipped),
            None if math.isnan(val_loss) else val_loss,
        )  # fmt: skip


def to_tensor(history: list[StepRecord]) -> Tensor:
    """Return the records as float64 [n, 6], which a checkpoint can hold."""
    return torch.tensor([record.numbers() for record in history], dtype=torch.float64).view(-1, 6)


def from_tensor(rows: Tensor) -> list[StepRecord]:
    """Return the records that ``to_tensor`` made ``rows`` of."""
    return [StepRecord.from_numbers(row) for row in rows.tolist()]


def chain(history: list[StepRecord]) -> list[str]:
    """Return the chain after each step: 16 hex digits."""
    links, last = [], ""
    for record in history:
        last = hashlib.sha256(last.encode() + struct.pack("<d", record.loss)).hexdigest()[:16]
        links.append(last)
    return links


def to_csv(history: list[StepRecord]) -> bytes:
    """Return history.csv: one row per step, the validation loss where an epoch ended."""
    lines = [_COLUMNS]
    for record, link in zip(history, chain(history), strict=True):
        val_loss = "" if record.val_loss is None else f"{record.val_loss:.6f}"
        lines.append(
            f"{record.step},{record.loss!r},{val_loss},{record.lr:.6e},{record.epoch},"
            f"{record.skipped},{link}"
        )
    return ("\n".join(lines) + "\n").encode()


def read_csv(content: bytes) -> list[tuple[StepRecord, str]]:
    """Return the records of history.csv, each with its chain."""
    rows = []
    for line in content.decode().splitlines()[1:]:
        step, loss, val_loss, lr, epoch, skipped, link = line.split(",")
        record = StepRecord(
            int(step), float(loss), float(lr), int(epoch), int(skipped),
            float(val_loss) if val_loss else None,
        )  # fmt: skip
        rows.append((record, link))
    return rows
