"""All queries against all references: candidates by their bits, verdicts by their pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lapvqa.firewall.descriptors import Bits, Film
from lapvqa.firewall.same_film import Verdict

RADIUS = 256  # bits that may differ between candidates, of 1024


@dataclass(frozen=True)
class FilmMatch:
    """One query and one reference that show the same film, or parts of it."""

    query: int
    """Row of the query."""
    reference: int
    """Row of the reference."""
    score: float
    """0.6 to 1, ``same_film.compare``."""
    verdict: Verdict
    orientation: str
    """One of ``descriptors.ORIENTATIONS``: how the query was turned to fit the reference."""


def find(
    queries: Bits,
    references: Bits,
    load_query: Callable[[int], Film],
    load_reference: Callable[[int], Film],
    *,
    wanted: Callable[[int, int], bool] | None = None,
    radius: int = RADIUS,
) -> list[FilmMatch]:
    """Return the references that show the same film as a query, by (query, reference).

    ``queries`` [Q, BYTES] and ``references`` [R, BYTES] are rows of ``descriptors.describe``; the
    loaders return a row's film, uint8 [H, W], and are asked for candidates only. ``wanted`` says
    of (query, reference) whether the pair is of interest, before a film is loaded: within one set
    ``lambda query, reference: reference < query``. Of a pair the best orientation is returned.
    The search is exact and its memory bounded: 400,000 references take 51 MB.
    """
    raise NotImplementedError
