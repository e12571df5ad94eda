"""Proof that a patient is not in a training set, without naming anybody in it.

A sorted Merkle tree (hashes as in RFC 9162, section 2.1) over 32-byte digests of the members, with
the lowest and the highest digest there can be as guards. Who is not in it lies between two
neighbours; the proof is these two and the ways up from both (arXiv:2210.09126 has the form).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_GUARDS = (b"\x00" * 32, b"\xff" * 32)


@dataclass(frozen=True)
class Absence:
    """Two neighbours, and where they stand among ``size`` leaves; all digests as hex."""

    size: int
    place: int
    """Of the lower one; the higher one stands next."""
    lower: str
    higher: str
    way_of_lower: tuple[str, ...]
    way_of_higher: tuple[str, ...]


def member_digest(key: bytes, patient: str) -> bytes:
    """Return the keyed digest by which a patient is a leaf of a training set's tree.

    ``key`` is the one that hides identifiers: without it nobody can ask the tree for a patient.
    """
    return hmac.digest(key, f"member:{patient}".encode(), "sha256")


def leaves(members: Iterable[bytes]) -> list[bytes]:
    """Return the members' digests in order, once each, between the guards.

    Raises ValueError for one that is not 32 bytes long, or that is a guard.
    """
    unique = set(members)
    if any(len(one) != 32 or one in _GUARDS for one in unique):
        raise ValueError("expected digests of 32 bytes between the lowest and the highest")
    return [_GUARDS[0], *sorted(unique), _GUARDS[1]]


def root(ordered: Sequence[bytes]) -> str:
    """Return the root, as hex, of ``leaves``."""
    return _levels(ordered)[-1][0].hex()


def prove_absence(ordered: Sequence[bytes], absent: bytes) -> Absence:
    """Return the proof that ``absent`` is none of ``leaves``; ValueError if it is one."""
    place = sum(one <= absent for one in ordered) - 1
    if absent in ordered:
        raise ValueError("expected a digest that is no leaf, found one that is")
    levels = _levels(ordered)
    ways = [tuple(one.hex() for one in _way(levels, at)) for at in (place, place + 1)]
    return Absence(len(ordered), place, ordered[place].hex(), ordered[place + 1].hex(), *ways)


def is_absent(expected_root: str, absent: bytes, proof: Absence) -> bool:
    """Tell whether ``proof`` shows that ``absent`` is not in the tree with that root."""
    lower, higher = bytes.fromhex(proof.lower), bytes.fromhex(proof.higher)
    if not (lower < absent < higher and 0 <= proof.place < proof.size - 1):
        return False
    ends = (
        (lower, proof.place, proof.way_of_lower),
        (higher, proof.place + 1, proof.way_of_higher),
    )
    return all(_climb(one, at, proof.size, way) == expected_root for one, at, way in ends)


def _levels(ordered: Sequence[bytes]) -> list[list[bytes]]:
    level = [hashlib.sha256(b"\x00" + one).digest() for one in ordered]
    levels = [level]
    while len(level) > 1:
        pairs = [level[at : at + 2] for at in range(0, len(level), 2)]
        level = [_node(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
        levels.append(level)
    return levels


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _way(levels: Sequence[Sequence[bytes]], at: int) -> Iterable[bytes]:
    for level in levels[:-1]:
        if at ^ 1 < len(level):  # an odd one at the end goes up as it is
            yield level[at ^ 1]
        at //= 2


def _climb(leaf: bytes, at: int, size: int, way: Sequence[str]) -> str | None:
    digest, rest = hashlib.sha256(b"\x00" + leaf).digest(), list(way)
    while size > 1:
        if at ^ 1 < size:
            if not rest:
                return None
            beside = bytes.fromhex(rest.pop(0))
            digest = _node(beside, digest) if at % 2 else _node(digest, beside)
        at, size = at // 2, (size + 1) // 2
    return None if rest else digest.hex()
