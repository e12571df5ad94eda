"""Kernels of exact area averaging: a native image to the stored grid in one pass over its cells.

Lengths are counted in 378ths of a native pixel: native pixel i covers [378 i, 378 (i + 1)) and
stored pixel o covers [N o, N (o + 1)), with N the longer side in pixels. So every overlap is an
integer, every sum is exact, and the same cells give the same sums on any machine.

A sum over a stored pixel is at most N * N times the largest value, and a lane (one column's sum
over the rows of one stored row) at most N times it: callers keep that below 2**32.
"""

from __future__ import annotations

import numpy as np
from numba import int64, njit, types, uint8, uint16, uint32, uint64, void

from lapvqa.schemas import CONTENT_SIZE

_PART = CONTENT_SIZE

# With their types named, kernels are compiled (once on a machine, then cached) when this module is
# imported, and not while a file is read. Cells are "C", aligned, and may be read-only.
_CELLS = tuple(types.Array(kind, 2, "C", readonly=True) for kind in (uint8, uint16))
_TABLE = types.Array(uint16, 1, "C", readonly=True)
_SUMS = types.Array(uint64, 2, "C")
_BITS = (uint32, uint32, uint32)


@njit(void(uint32[::1], int64, uint64[::1]), cache=True, nogil=True)
def _sum_across(lanes, longest, line_sums):  # type: ignore[no-untyped-def]
    """Fill one row of sums from the lanes of its native columns."""
    edge = len(lanes) * _PART
    for stored_col in range(len(line_sums)):
        left = stored_col * longest
        right = min(left + longest, edge)
        total = np.uint64(0)
        for col in range(left // _PART, (right + _PART - 1) // _PART):
            weight = np.uint64(min(right, (col + 1) * _PART) - max(left, col * _PART))
            total += weight * np.uint64(lanes[col])
        line_sums[stored_col] = total


@njit(
    [void(cells, int64, *_BITS, uint32, uint32, _SUMS) for cells in _CELLS], cache=True, nogil=True
)
def clamped_sums(cells, longest, mask, flip, factor, low, high, sums):  # type: ignore[no-untyped-def]
    """Fill ``sums`` [h, w] with the weighted sums of ((cell & mask) ^ flip) * factor, clamped.

    ``cells`` is uint8 or uint16 [rows, cols]; the scalars but ``longest`` are uint32.
    """
    rows, cols = cells.shape
    lanes = np.empty(cols, np.uint32)
    for stored_row in range(sums.shape[0]):
        top = stored_row * longest
        bottom = min(top + longest, rows * _PART)
        lanes[:] = 0
        for row in range(top // _PART, (bottom + _PART - 1) // _PART):
            weight = np.uint32(min(bottom, (row + 1) * _PART) - max(top, row * _PART))
            line = cells[row]
            for col in range(cols):
                value = np.uint32(np.uint32(np.uint32(line[col] & mask) ^ flip) * factor)
                lanes[col] += np.uint32(weight * min(max(value, low), high))
        _sum_across(lanes, longest, sums[stored_row])


@njit([void(cells, int64, *_BITS, _TABLE, _SUMS) for cells in _CELLS], cache=True, nogil=True)
def mapped_sums(cells, longest, mask, flip, down, table, sums):  # type: ignore[no-untyped-def]
    """Fill ``sums`` [h, w] with the weighted sums of table[((cell & mask) ^ flip) >> down].

    ``table`` is uint16 with an entry for every value that may be met.
    """
    rows, cols = cells.shape
    lanes = np.empty(cols, np.uint32)
    for stored_row in range(sums.shape[0]):
        top = stored_row * longest
        bottom = min(top + longest, rows * _PART)
        lanes[:] = 0
        for row in range(top // _PART, (bottom + _PART - 1) // _PART):
            weight = np.uint32(min(bottom, (row + 1) * _PART) - max(top, row * _PART))
            line = cells[row]
            for col in range(cols):
                index = np.uint32(np.uint32(line[col] & mask) ^ flip) >> down
                lanes[col] += np.uint32(weight * np.uint32(table[index]))
        _sum_across(lanes, longest, sums[stored_row])


@njit([void(cells, int64, *_BITS, int64[::1]) for cells in _CELLS], cache=True, nogil=True)
def count_values(cells, step, mask, flip, down, counts):  # type: ignore[no-untyped-def]
    """Add to ``counts`` how often each value is met on every ``step``-th row and column."""
    rows, cols = cells.shape
    for row in range(0, rows, step):
        for col in range(0, cols, step):
            counts[np.uint32(np.uint32(cells[row, col] & mask) ^ flip) >> down] += 1
