"""Does a text name a side of the body? An image whose report does must not be mirrored."""

from __future__ import annotations

import re

# A letter or digit on either side makes another word of it (upright, L2); an underscore does not.
_BEFORE, _AFTER = "(?<![A-Za-z0-9])", "(?![A-Za-z0-9])"

_WORDS = (
    r"(?:mid|mid-)?(?:left|right)(?:ward|wards|sided|side|most)?",
    r"(?:lt|rt)",
    r"(?:dextro|levo|laevo|sinistro)[a-z]*",
    r"situs",
    # One-sided places: the lingula is left; the middle lobe and the minor fissure are right.
    r"lingula[a-z]*",
    r"middle[ -]lobes?",
    r"(?:minor|horizontal) fissures?",
    r"azygo(?:u)?s (?:fissure|lobe)s?",
)
_ABBREVIATIONS = (
    r"[LR](?!/[OS]\b)(?!-?spine)(?!['’]?s\b)",  # but r/o, r/s, L-spine
    r"[LR][ULM]L",  # lobes
    r"[LR][UL][QEZ]",  # quadrants, extremities, zones
    r"[LR](?:IJ|SC|SCV|A|V|AE|VH|PA|MZ|BBB)",  # lines, chambers, vessels
)
_SIDE = re.compile(
    f"{_BEFORE}(?:(?i:{'|'.join(_WORDS)})|{'|'.join(_ABBREVIATIONS)}){_AFTER}",
)


def names_side(text: str) -> bool:
    """Return whether ``text`` names left or right, by word, abbreviation or one-sided place.

    Bilateral, both and unilateral name none. In doubt the answer is yes: it costs one flip.
    """
    return _SIDE.search(text) is not None
