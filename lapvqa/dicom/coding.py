"""How a stored value lies in the bits of a cell (PS3.5 8.1.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Cells = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True)
class Coding:
    """Where the ``bits`` of a value lie in its cell, and whether they are two's complement.

    ((cell & mask) ^ flip) >> down is the value's rank: 0 for the lowest value, in their order.
    Bits outside the mask may hold an overlay of old; they are no part of the value.
    """

    bits: int
    signed: bool = False
    down: int = 0
    """Bits below the value: High Bit + 1 - Bits Stored."""

    @property
    def mask(self) -> int:
        """The bits that make the value."""
        return self.count - 1 << self.down

    @property
    def flip(self) -> int:
        """The sign bit: flipped, negative values come before the others."""
        return (self.count >> 1 << self.down) if self.signed else 0

    @property
    def count(self) -> int:
        """How many values there are."""
        return 1 << self.bits

    @property
    def lowest(self) -> int:
        """The value of rank 0."""
        return -(self.count >> 1) if self.signed else 0

    def values(self) -> Values:
        """Return every possible value in ascending order, so that a rank is its index."""
        return np.arange(self.lowest, self.lowest + self.count, dtype=np.float64)

    def ranks(self, cells: Cells) -> NDArray[np.uint16]:
        """Return the rank of each cell's value, of the same shape."""
        ranks = ((cells.astype(np.int32) & self.mask) ^ self.flip) >> self.down
        return ranks.astype(np.uint16)
