"""Keys in place of public datasets' identifiers, and splits that are functions of the keys."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def key(dataset: str, name: str) -> str:
    """Return a short key for a patient or image of a public dataset.

    Their numbers are pseudonyms given by the publisher, so the hash needs no secret; it keeps
    them out of results, and the same on every machine.
    """
    return hashlib.sha256(f"{dataset}/{name}".encode()).hexdigest()[:16]


def lowest(keys: Iterable[str], share: float, purpose: str) -> set[str]:
    """Return the ``share`` of ``keys`` whose hashes for this purpose are lowest.

    A pure function of the set: order does not matter. Of two keys or more at least one is taken
    and at least one left.
    """
    ordered = sorted(set(keys), key=lambda one: key(purpose, one))
    return set(ordered[: min(max(1, round(share * len(ordered))), len(ordered) - 1)])
