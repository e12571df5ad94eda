"""The proof of absence: it holds for everybody who is absent, and for nobody who is there."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapvqa.lineage.merkle import Absence, is_absent, leaves, prove_absence, root


def digest(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


SETS = st.sets(st.integers(0, 10_000), max_size=70)


@given(SETS, st.integers(0, 10_000))
def test_who_is_absent_is_proven_absent_and_who_is_there_is_not(
    members: set[int], asked: int
) -> None:
    ordered = leaves(map(digest, members))
    if asked in members:
        with pytest.raises(ValueError, match="no leaf"):
            prove_absence(ordered, digest(asked))
        # A proof for the set without them does not hold for the set with them.
        without = leaves(map(digest, members - {asked}))
        proof = prove_absence(without, digest(asked))
        assert is_absent(root(without), digest(asked), proof)
        assert not is_absent(root(ordered), digest(asked), proof)
    else:
        proof = prove_absence(ordered, digest(asked))
        assert is_absent(root(ordered), digest(asked), proof)


@given(st.sets(st.integers(0, 10_000), min_size=3, max_size=70), st.data())
def test_neighbours_that_are_none_prove_nothing(members: set[int], data: st.DataObject) -> None:
    """Whoever leaves out a member between two others cannot make a proof of it."""
    ordered = leaves(map(digest, members))
    place = data.draw(st.integers(1, len(ordered) - 2))
    hidden = ordered[place]
    lower, higher = prove_around(ordered, place - 1), prove_around(ordered, place + 1)
    for at in (place - 1, place):
        forged = Absence(
            len(ordered), at, ordered[place - 1].hex(), ordered[place + 1].hex(), lower, higher
        )
        assert not is_absent(root(ordered), hidden, forged)


def prove_around(ordered: list[bytes], place: int) -> tuple[str, ...]:
    """The way up from one leaf, taken from an honest proof beside it."""
    if place + 1 < len(ordered):
        beside = (int.from_bytes(ordered[place]) + 1).to_bytes(32)
        return prove_absence(ordered, beside).way_of_lower
    return prove_absence(ordered, (int.from_bytes(ordered[place]) - 1).to_bytes(32)).way_of_higher


@given(SETS, st.integers(10_001, 20_000), st.integers(0, 255))
def test_a_changed_proof_proves_nothing(members: set[int], asked: int, bit: int) -> None:
    ordered = leaves(map(digest, members))
    proof = prove_absence(ordered, digest(asked))
    other = (int.from_bytes(bytes.fromhex(proof.lower)) ^ (1 << bit)).to_bytes(32).hex()
    assert not is_absent(root(ordered), digest(asked), replace(proof, lower=other))
    assert not is_absent(root(ordered), digest(asked), replace(proof, way_of_lower=()))
    assert not is_absent(root([*ordered, digest(1)]), digest(asked), proof)


def test_the_order_of_members_and_doubles_change_no_root() -> None:
    members = list(map(digest, range(9)))
    assert root(leaves(members)) == root(leaves([*reversed(members), members[3]]))
    assert root(leaves(members)) != root(leaves(members[1:]))


def test_what_is_no_digest_is_refused() -> None:
    for wrong in (b"short", b"\x00" * 32, b"\xff" * 32):
        with pytest.raises(ValueError, match="32 bytes"):
            leaves([wrong])
