"""Two films to a score: is one an edited copy of the other?"""

from __future__ import annotations

from typing import Literal

from lapvqa.firewall.descriptors import Film

SAME_FILM, EDITED_COPY = 0.9, 0.6
Verdict = Literal["same film", "edited copy or same patient"]


def verdict_of(score: float) -> Verdict | None:
    """Return what a score says of two films; None up to 0.6: nothing."""
    if score > SAME_FILM:
        return "same film"
    return "edited copy or same patient" if score > EDITED_COPY else None


def compare(query: Film, reference: Film) -> float:
    """Return the score of two grey films uint8 [H, W] in the same orientation: 0 to 1.

    ``|NCC|`` of the band-passed films where one, moved by an affine map, covers the other; 0 if
    no map is found.
    """
    raise NotImplementedError
