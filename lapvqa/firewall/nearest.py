"""The distance of every reference to a film, however the film is turned: exact, no index.

Compiled once on a machine, then cached; as fast as faiss (docs/decisions/0029-film-matching.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types, uint8, uint16, uint64, void
from numba.extending import intrinsic

WORDS = 32
"""Of 64 bits, in the bits of one window: descriptors.BITS / 64."""


@intrinsic  # type: ignore[untyped-decorator]
def _count_ones(_: Any, word: Any) -> Any:
    """Return the processor's own count of the ones in a word."""
    return uint64(uint64), lambda context, builder, signature, args: builder.ctpop(args[0])


_ROWS = types.Array(uint64, 3, "C", readonly=True)


@njit(void(_ROWS, _ROWS, uint16[::1], uint8[::1]), cache=True, nogil=True)
def nearest_turn(references, query, distances, turns):  # type: ignore[no-untyped-def]
    """Fill for each of references [R, W, 32] the distance [R] of the query's nearest turn [R].

    ``query`` is [turns, W, 32]. The distance of two films is that of their two nearest windows,
    in bits: one film's whole may be the other's inner part. Of equal turns the first counts.
    """
    windows = references.shape[1]
    for row in range(references.shape[0]):
        nearest, nearest_turn = uint64(64 * WORDS + 1), 0
        for turn in range(query.shape[0]):
            for ours in range(windows):
                for theirs in range(windows):
                    bits = uint64(0)
                    for word in range(WORDS):
                        bits += _count_ones(query[turn, ours, word] ^ references[row, theirs, word])
                    if bits < nearest:
                        nearest, nearest_turn = bits, turn
        distances[row], turns[row] = np.uint16(nearest), np.uint8(nearest_turn)
