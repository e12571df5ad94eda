"""Kernels of exact area averaging: a native image to the stored grid in one pass over its cells.

Lengths are counted in 378ths of a native pixel: native pixel i covers [378 i, 378 (i + 1)) and
stored pixel o covers [N o, N (o + 1)), with N the longer side in pixels. So every overlap is an
integer and every sum is exact; what follows is IEEE 754 arithmetic in a fixed order, so the same
cells give the same bits on any machine. Where the far edge of the shorter side covers a part of a
stored pixel, the mean is that of the part.

What is stored is (mean - zero) * gain / span, within 0 .. top, rounded half up: exactly, where zero
is 0 and gain 1. It is mapped here because arrays of means would cost fresh memory, and that costs
as much as the averaging itself.

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
_MAP = (float64, float64, float64, float64)


@njit(void(uint32[::1], uint64[::1], int64, int64, *_MAP, uint16[::1]), cache=True, nogil=True)
def _store_row(  # type: ignore[no-untyped-def]
    lanes, upto, longest, height, zero, gain, span, top, stored
):
    """Fill one stored row from the lanes of its native columns; ``upto`` is room for cols + 1."""
    cols = len(lanes)
    total = np.uint64(0)
    for col in range(cols):
        total += np.uint64(lanes[col])
        upto[col + 1] = total
    left, before = 0, np.uint64(0)
    for stored_col in range(len(stored)):
        right = min(left + longest, cols * PART)
        whole = right // PART
        after = np.uint64(PART) * upto[whole]
        if right > whole * PART:
            after += np.uint64(right - whole * PART) * np.uint64(lanes[whole])
        area = float64(height * (right - left))
        grey = (float64(after - before) - zero * area) * gain / (area * span)
        stored[stored_col] = uint16(min(max(grey, 0.0), top) + 0.5)
        left, before = right, after


@njit(
    [void(cells, int64, *_BITS, uint32, uint32, *_MAP, uint16[:, ::1]) for cells in _CELLS],
    cache=True,
    nogil=True,
)
def clamped_means(  # type: ignore[no-untyped-def]
    cells, longest, mask, flip, factor, low, high, zero, gain, span, top, stored
):
    """Fill ``stored`` [h, w] with means of ((cell & mask) ^ flip) * factor, clamped.

    ``cells`` is uint8 or uint16 [rows, cols]; ``mask`` to ``high`` are uint32.
    """
    rows, cols = cells.shape
    lanes, upto = np.empty(cols, np.uint32), np.zeros(cols + 1, np.uint64)
    for stored_row in range(stored.shape[0]):
        first = stored_row * longest
        last = min(first + longest, rows * PART)
        lanes[:] = 0
        for row in range(first // PART, (last + PART - 1) // PART):
            weight = np.uint32(min(last, (row + 1) * PART) - max(first, row * PART))
            line = cells[row]
            for col in range(cols):
                value = np.uint32(np.uint32(np.uint32(line[col] & mask) ^ flip) * factor)
                lanes[col] += np.uint32(weight * min(max(value, low), high))
        _store_row(lanes, upto, longest, last - first, zero, gain, span, top, stored[stored_row])


@njit(
    [void(cells, int64, *_BITS, _TABLE, *_MAP, uint16[:, ::1]) for cells in _CELLS],
    cache=True,
    nogil=True,
)
def mapped_means(  # type: ignore[no-untyped-def]
    cells, longest, mask, flip, down, table, zero, gain, span, top, stored
):
    """Fill ``stored`` [h, w] with means of table[((cell & mask) ^ flip) >> down].

    ``table`` is uint16 with an entry for every value that may be met.
    """
    rows, cols = cells.shape
    lanes, upto = np.empty(cols, np.uint32), np.zeros(cols + 1, np.uint64)
    for stored_row in range(stored.shape[0]):
        first = stored_row * longest
        last = min(first + longest, rows * PART)
        lanes[:] = 0
        for row in range(first // PART, (last + PART - 1) // PART):
            weight = np.uint32(min(last, (row + 1) * PART) - max(first, row * PART))
            line = cells[row]
            for col in range(cols):
                rank = np.uint32(np.uint32(line[col] & mask) ^ flip) >> down
                lanes[col] += np.uint32(weight * np.uint32(table[rank]))
        _store_row(lanes, upto, longest, last - first, zero, gain, span, top, stored[stored_row])


@njit([void(cells, int64, *_BITS, int64[::1]) for cells in _CELLS], cache=True, nogil=True)
def count_values(cells, step, mask, flip, down, counts):  # type: ignore[no-untyped-def]
    """Add to ``counts`` how often each rank is met on every ``step``-th row and column."""
    rows, cols = cells.shape
    for row in range(0, rows, step):
        for col in range(0, cols, step):
            counts[np.uint32(np.uint32(cells[row, col] & mask) ^ flip) >> down] += 1
