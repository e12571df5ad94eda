"""What of a film is picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from drawn_films import draw
from film_edits import framed, jpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from lapvqa.firewall.trim import trim

FILM = draw(0)
GREY = st.integers(0, 255)


@settings(max_examples=20)
@given(st.lists(st.tuples(GREY, st.floats(0.01, 0.3)), min_size=1, max_size=3))
def test_borders_in_borders_are_cut_off(borders: list[tuple[int, float]]) -> None:
    picture = trim(FILM)
    film = picture
    for grey, share in borders:
        film = framed(film, share, grey)
    height, width = trim(film).shape
    assert abs(height - len(picture)) <= 0.02 * len(picture)
    assert abs(width - picture.shape[1]) <= 0.02 * picture.shape[1]


def test_a_border_saved_as_jpeg_and_one_with_letters_are_cut_off() -> None:
    picture = trim(FILM)
    film = framed(picture, 0.25, 0)
    lettered = film.copy()
    for text, corner in (("1", (5, 20)), ("W 2108 : L 2723", (5, len(film) - 10))):
        cv2.putText(lettered, text, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.4, [255], 1)
    for one in (jpeg(film, 40), lettered):
        assert (one != film).any()
        assert np.allclose(trim(one).shape, picture.shape, atol=12)


def test_overexposed_skin_stays() -> None:
    picture = trim(FILM).copy()
    picture[-40:, : int(0.9 * picture.shape[1])] = 255  # a tenth of each line is still picture
    assert trim(picture).shape == picture.shape


def test_a_pale_film_keeps_its_edges() -> None:
    pale = (120 + FILM // 16).astype(np.uint8)
    assert np.allclose(trim(pale).shape, trim(FILM).shape, atol=12)


def test_a_film_of_one_grey_stays_whole() -> None:
    assert trim(np.full((30, 40), 7, np.uint8)).shape == (30, 40)


@pytest.mark.parametrize(
    "film", [np.zeros((3, 4, 3), np.uint8), np.zeros((3, 4)), np.zeros((0, 4), np.uint8)]
)
def test_what_is_no_grey_film_is_refused(film: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected a grey film"):
        trim(film)
