"""All queries against all references: candidates by their bits, verdicts by their pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from lapvqa.firewall.descriptors import BITS, BYTES, ORIENTATIONS, Bits, describe_turned, turned
from lapvqa.firewall.nearest import nearest_turn
from lapvqa.firewall.same_film import Features, Verdict, compare, features, verdict_of
from lapvqa.firewall.trim import Film

RADIUS = 550
"""Bits of 2,048 in which candidates may differ."""
PATIENCE = 200
"""Candidates of a query in a row, nearest first, that may be nothing before the rest is left.

It costs 20 ms each where there are so many, and decides what is found among 100,000 films.
"""
_KEPT = 64  # references whose features are kept, 0.5 MB each


@dataclass(frozen=True)
class FilmMatch:
    """One query and one reference that show the same film, or parts of it."""

    query: int
    """Row of the query."""
    reference: int
    """Row of the reference."""
    score: float
    """0.6 to 1: ``same_film.compare``."""
    verdict: Verdict
    orientation: str
    """One of ``descriptors.ORIENTATIONS``: how the query was turned to fit the reference."""


@dataclass(frozen=True)
class Candidate:
    """A pair whose bits are near."""

    query: int
    reference: int
    distance: int
    orientation: str


def find(
    num_queries: int,
    references: Bits,
    load_query: Callable[[int], Film],
    load_reference: Callable[[int], Film],
    *,
    wanted: Callable[[int, int], bool] | None = None,
    radius: int = RADIUS,
    patience: int = PATIENCE,
    workers: int = 1,
) -> list[FilmMatch]:
    """Return the references that show the same film as a query, by (query, reference).

    ``references`` [R, BYTES] are rows of ``descriptors.describe``. The loaders return a row's
    film, uint8 [H, W]: of every query, and of the references that are candidates. ``wanted`` says
    of (query, reference) whether the pair is of interest, before the reference is loaded: within
    one set ``lambda query, reference: reference < query``. The search is exact; it takes 3 bytes
    a reference and worker beside ``references``. With several ``workers``, threads, the functions
    must bear calls at the same time.
    """
    kept = lru_cache(_KEPT)(lambda row: features(load_reference(row)))

    def matches_of(query: int) -> list[FilmMatch]:
        film = load_query(query)
        near = candidates(query, film, references, wanted=wanted, radius=radius)
        found = _verified(near, film, kept, patience)
        return sorted(found, key=lambda match: match.reference)

    with ThreadPoolExecutor(workers) as pool:
        return [match for found in pool.map(matches_of, range(num_queries)) for match in found]


def candidates(
    query: int,
    film: Film,
    references: Bits,
    *,
    wanted: Callable[[int, int], bool] | None = None,
    radius: int = RADIUS,
) -> list[Candidate]:
    """Return the wanted references within ``radius`` bits of a query's film, nearest first."""
    distances = np.empty(len(references), np.uint16)
    turns = np.empty(len(references), np.uint8)
    nearest_turn(_words(references), _words(describe_turned(film)), distances, turns)
    rows = np.flatnonzero(distances <= radius)
    rows = rows[np.argsort(distances[rows], kind="stable")]
    return [
        Candidate(query, row, int(distances[row]), ORIENTATIONS[turns[row]])
        for row in rows.tolist()
        if wanted is None or wanted(query, row)
    ]


def _words(bits: Bits) -> NDArray[np.uint64]:
    """View rows [N, BYTES] as words of windows [N, W, 32]; ValueError for another form."""
    if bits.dtype != np.uint8 or bits.ndim != 2 or bits.shape[1] != BYTES:
        raise ValueError(
            f"expected descriptors uint8 [N, {BYTES}], found {bits.dtype} {bits.shape}"
        )
    return np.ascontiguousarray(bits).view(np.uint64).reshape(len(bits), -1, BITS // 64)


def _verified(
    near: list[Candidate], film: Film, kept: Callable[[int], Features], patience: int
) -> Iterator[FilmMatch]:
    """Look at the pixels of candidates until ``patience`` of them in a row were nothing."""
    of_film = cache(lambda orientation: features(turned(film, orientation)))
    nothing = 0
    for one in near:
        score = compare(of_film(one.orientation), kept(one.reference))
        verdict = verdict_of(score)
        if verdict is not None:
            nothing = 0
            yield FilmMatch(one.query, one.reference, score, verdict, one.orientation)
        elif (nothing := nothing + 1) == patience:
            return
