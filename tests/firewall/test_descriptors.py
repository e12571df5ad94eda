"""The bits of a film: what they do not change with, and that they stay what they are."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_films import draw, stored
from film_edits import framed, gamma, resized
from hypothesis import given, settings
from hypothesis import strategies as st

from lapvqa.firewall.descriptors import (
    BITS,
    BYTES,
    ORIENTATIONS,
    describe,
    describe_turned,
    turned,
)
from lapvqa.firewall.matching import RADIUS

FILMS = [draw(patient) for patient in range(6)]
BITS_OF = [describe(film) for film in FILMS]
ANY_FILM = st.integers(0, len(FILMS) - 1)


def apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the share of bits in which two descriptors differ, window by window."""
    return float(np.unpackbits(ours ^ theirs).mean())


@settings(max_examples=30)
@given(
    ANY_FILM, st.floats(0.6, 1.6), st.floats(0.5, 1.5), st.floats(0, 0.2), st.integers(0, 255),
    st.booleans(),
)  # fmt: skip
def test_tone_size_border_and_complement_change_few_bits(
    film: int, exponent: float, size: float, border: float, grey: int, complement: bool
) -> None:
    copy = framed(resized(gamma(FILMS[film], exponent), size), border, grey)
    assert apart(BITS_OF[film], describe(255 - copy if complement else copy)) < RADIUS / BITS


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_turned_film_has_the_turned_bits(orientation: str) -> None:
    row = ORIENTATIONS.index(orientation)
    for film, bits in zip(FILMS, BITS_OF, strict=True):
        film = film[:384, :384]  # so that a quarter turn asks for no other resizing
        assert apart(describe_turned(film)[row], describe(turned(film, orientation))) < 0.01
        assert (apart(describe_turned(film)[row], bits) > 0.2) == (row > 0)


def test_a_quarter_is_clockwise_and_undone_by_three_more() -> None:
    film = np.array([[1, 2], [3, 4]], np.uint8)
    assert turned(film, "turned 90").tolist() == [[3, 1], [4, 2]]
    assert turned(turned(film, "turned 90"), "turned 270").tolist() == film.tolist()
    assert turned(film, "mirrored").tolist() == [[2, 1], [4, 3]]


def test_films_of_different_patients_are_apart() -> None:
    pairs = [apart(a, b) for row, a in enumerate(BITS_OF) for b in BITS_OF[:row]]
    assert np.median(pairs) > RADIUS / BITS


def test_padding_changes_little() -> None:
    assert apart(BITS_OF[0], describe(stored(FILMS[0]))) < 0.1


def test_bits_are_those_of_this_version() -> None:
    """Bits are stored: another recipe asks for another VERSION. A few may differ by rounding."""
    down, across = np.mgrid[0:200, 0:160] / 40
    film = np.rint(127 + 60 * np.sin(across * down) + 60 * np.cos(3 * across - down))
    bits = describe(film.astype(np.uint8))
    assert bits.dtype == np.uint8
    assert bits.shape == (BYTES,)
    known = np.frombuffer(bytes.fromhex(GOLDEN), np.uint8)
    assert np.bitwise_count(bits[: len(known)] ^ known).sum() <= 4


GOLDEN = "1b62a4bf56c0d330c1897515422bf5fdc3754550b839d906938b70955e020403"


@pytest.mark.parametrize("film", [np.full((9, 9), 5, np.uint8), np.eye(1, dtype=np.uint8)])
def test_a_film_without_contrast_has_bits_too(film: np.ndarray) -> None:
    assert apart(describe(film), describe(np.full((50, 60), 200, np.uint8))) == 0


def test_other_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a grey film"):
        describe(np.zeros((4, 4), np.float32))
