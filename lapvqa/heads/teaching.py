"""Prompts and answers as batches: teacher forcing, and prompts of one length together.

A text is begin, prompt, answer, end. The loss sees the answer and the end alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NO_TARGET = -100
"""Where a place has nothing to predict: padding and all but the last place of a prompt."""


@dataclass(frozen=True)
class Lesson:
    """A batch to learn from: what is read, int64 [B, T], and what follows it, int64 [B, T].

    ``targets`` is NO_TARGET where nothing is to be learnt. Padding stands at the end only, where
    a causal decoder's earlier places do not see it.
    """

    token_ids: Tensor
    targets: Tensor

    def to(self, device: torch.device | str) -> Lesson:
        """Return the batch on a device."""
        return Lesson(self.token_ids.to(device), self.targets.to(device))


def teach(
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    *,
    bos_id: int,
    eos_id: int,
    max_length: int,
) -> Lesson:
    """Arrange prompts and their answers, of any lengths, for teacher forcing.

    Raises ValueError for a row that needs more than ``max_length`` places: how a text is cut is
    for the reader of the data to decide and to count.
    """
    rows = []
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        places = 1 + len(prompt) + len(answer)  # begin; the end is only ever a target
        if places > max_length:
            raise ValueError(
                f"row {row}: a prompt of {len(prompt)} and an answer of {len(answer)} tokens need "
                f"{places} positions, expected at most {max_length}; cut one of them"
            )
        rows.append(([bos_id, *prompt, *answer], [*answer, eos_id]))
    length = max((len(read) for read, _ in rows), default=0)
    token_ids = torch.full((len(rows), length), eos_id)
    targets = torch.full((len(rows), length), NO_TARGET)
    for row, (read, asked) in enumerate(rows):
        token_ids[row, : len(read)] = torch.tensor(read)
        targets[row, len(read) - len(asked) : len(read)] = torch.tensor(asked)
    return Lesson(token_ids, targets)


def by_length(prompts: Sequence[Sequence[int]]) -> list[tuple[list[int], Tensor]]:
    """Group prompts for ``generate``, which takes prompts of one length: no padding, no mask.

    Returns, by ascending length, the rows and their prompts int64 [rows, Q].
    """
    groups: dict[int, list[int]] = {}
    for row, prompt in enumerate(prompts):
        groups.setdefault(len(prompt), []).append(row)
    return [
        (rows, torch.tensor([list(prompts[row]) for row in rows], dtype=torch.long))
        for _, rows in sorted(groups.items())
    ]
