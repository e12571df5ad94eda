"""Parallel prediction: some reports are written without seeing their own earlier words.

A decoder that sees the words before can guess most of the next one from language alone, and a
small archive's wording is soon known by heart; where it sees none, all it knows is the image
(CapPa, arXiv:2306.07915, section 3.2; there the hidden share is 0.75 too).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_PARALLEL_STREAM = 2  # 0 and 1 are the order of samples and the augmentation


def hide_inputs(
    inputs: Tensor, share: float, *, seed: int, epoch: int, indices: Sequence[int]
) -> Tensor:
    """Return ``inputs`` [B, T] with ``share`` of the rows hidden: the begin token everywhere.

    Which rows is a pure function of (seed, epoch, the sample's index).
    """
    drawn = [_draw(seed, epoch, index) for index in indices]
    hidden = torch.tensor([one < share for one in drawn])
    return torch.where(hidden.unsqueeze(1), inputs[:, :1], inputs)


def _draw(seed: int, epoch: int, index: int) -> float:
    stream = np.random.Philox(key=seed, counter=[0, index, epoch, _PARALLEL_STREAM])
    return float(np.random.Generator(stream).random())
