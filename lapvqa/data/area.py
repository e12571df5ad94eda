"""Kernels of exact area averaging: a native image to the stored grid in one pass over its cells.

Lengths are counted in 378ths of a native pixel: native pixel i covers [378 i, 378 (i + 1)) and
stored pixel o covers [N o, N (o + 1)), with N the longer side in pixels. So every overlap is an
integer and every sum is exact; a mean is the one quotient of two integers below 2**53, rounded by
IEEE 754, so the same cells give the same bits on any machine. Where the far edge of the shorter
side covers a part of a stored pixel, the mean is that of the part.

Cells are first added up along the columns into one 32-bit lane each, N times the largest value at
most (callers keep that below 2**32), then the lanes along the row, from the left edge.
"""

from __future__ import annotations

import numpy as np
from numba import float64, int64, njit, types, uint8, uint16, uint32, uint64, void

# schemas.CONTENT_SIZE written out: the cache of compiled kernels follows this file only.
PART = 378

# With their types named, kernels are compiled (once on a machine, then cached) when this module is
# imported, and not while a file is read. Cells are "C", aligned, and may be read-only.
_CELLS = tuple(types.Array(kind, 2, "C", readonly=True) for kind in (uint8, uint16))
_TABLE = types.Array(uint16, 1, "C", readonly=True)
_BITS = (uint32, uint32, uint32)


@njit(void(uint32[::1], uint64[::1], int64, int64, float64[::1]), cache=True, nogil=True)
def _mean_across(lanes, upto, longest, height, means):  # type: ignore[no-untyped-def]
    """Fill one row of means from the lanes of its native columns; ``upto`` is room for cols + 1."""
    cols = len(lanes)
    total = np.uint64(0)
    for col in range(cols):
        total += np.uint64(lanes[col])
        upto[col + 1] = total
    left, before = 0, np.uint64(0)
    for stored_col in range(len(means)):
        right = min(left + longest, cols * PART)
        whole = right // PART
        after = np.uint64(PART) * upto[whole]
        if right > whole * PART:
            after += np.uint64(right - whole * PART) * np.uint64(lanes[whole])
        means[stored_col] = float64(after - before) / float64(height * (right - left))
        left, before = right, after


@njit(
    [void(cells, int64, *_BITS, uint32, uint32, float64[:, ::1]) for cells in _CELLS],
    cache=True,
    nogil=True,
)
def clamped_means(cells, longest, mask, flip, factor, low, high, means):  # type: ignore[no-untyped-def]
    """Fill ``means`` [h, w] with the means of ((cell & mask) ^ flip) * factor, clamped.

    ``cells`` is uint8 or uint16 [rows, cols]; the scalars but ``longest`` are uint32.
    """
    rows, cols = cells.shape
    lanes, upto = np.empty(cols, np.uint32), np.zeros(cols + 1, np.uint64)
    for stored_row in range(means.shape[0]):
        top = stored_row * longest
        bottom = min(top + longest, rows * PART)
        lanes[:] = 0
        for row in range(top // PART, (bottom + PART - 1) // PART):
            weight = np.uint32(min(bottom, (row + 1) * PART) - max(top, row * PART))
            line = cells[row]
            for col in range(cols):
                value = np.uint32(np.uint32(np.uint32(line[col] & mask) ^ flip) * factor)
                lanes[col] += np.uint32(weight * min(max(value, low), high))
        _mean_across(lanes, upto, longest, bottom - top, means[stored_row])


@njit(
    [void(cells, int64, *_BITS, _TABLE, float64[:, ::1]) for cells in _CELLS],
    cache=True,
    nogil=True,
)
def mapped_means(cells, longest, mask, flip, down, table, means):  # type: ignore[no-untyped-def]
    """Fill ``means`` [h, w] with the means of table[((cell & mask) ^ flip) >> down].

    ``table`` is uint16 with an entry for every value that may be met.
    """
    rows, cols = cells.shape
    lanes, upto = np.empty(cols, np.uint32), np.zeros(cols + 1, np.uint64)
    for stored_row in range(means.shape[0]):
        top = stored_row * longest
        bottom = min(top + longest, rows * PART)
        lanes[:] = 0
        for row in range(top // PART, (bottom + PART - 1) // PART):
            weight = np.uint32(min(bottom, (row + 1) * PART) - max(top, row * PART))
            line = cells[row]
            for col in range(cols):
                rank = np.uint32(np.uint32(line[col] & mask) ^ flip) >> down
                lanes[col] += np.uint32(weight * np.uint32(table[rank]))
        _mean_across(lanes, upto, longest, bottom - top, means[stored_row])


@njit([void(cells, int64, *_BITS, int64[::1]) for cells in _CELLS], cache=True, nogil=True)
def count_values(cells, step, mask, flip, down, counts):  # type: ignore[no-untyped-def]
    """Add to ``counts`` how often each rank is met on every ``step``-th row and column."""
    rows, cols = cells.shape
    for row in range(0, rows, step):
        for col in range(0, cols, step):
            counts[np.uint32(np.uint32(cells[row, col] & mask) ^ flip) >> down] += 1
