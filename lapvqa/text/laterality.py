"""Does a text name a side of the body? An image whose report does must not be mirrored."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

from lapvqa.text.languages import UNSPACED, Language, any_spelling, is_unspaced

# A letter or digit beside it makes another word of it (upright, L2, Röntgen); _ does not, nor does
# an ideograph. An accent may stand as a character of its own.
_MARKS = "\u0300-\u036f"
_BEFORE = rf"(?<![^\W_{UNSPACED}])(?<![{_MARKS}])"
_AFTER = rf"(?![^\W_{UNSPACED}]|[{_MARKS}])"
_BETWEEN = r"(?:\s+|-)"


def names_side(text: str, language: Language | None) -> bool:
    """Return whether ``text`` names left or right, by word, abbreviation or one-sided place.

    Bilateral, both and unilateral name none. In doubt, and in an unknown language (None), the
    answer is yes: it costs one flip.
    """
    if language is None:
        return True
    side = _side(language)
    forms = [text] if text.isascii() else [text, unicodedata.normalize("NFKC", text)]
    return any(found["side"] for form in forms for found in side.finditer(form))


@cache
def _side(language: Language) -> re.Pattern[str]:
    """Return a pattern for what names a side (group ``side``) or only looks like it."""
    sides = language.table.sides
    never, words, abbreviations = map(_any, (sides.never, sides.words, sides.abbreviations))
    return re.compile(f"{never}|(?P<side>(?i:{words})|{abbreviations})")


def _any(words: Iterable[str]) -> str:
    """Return a pattern for any of ``words``; one of ideographs or kana may stand anywhere."""
    spaced, anywhere = [], []
    for word in words:
        if is_unspaced(word):
            anywhere.append(re.escape(word))
        else:
            stem = any_spelling(word.removesuffix("*"), between=_BETWEEN)
            spaced.append(stem + r"[^\W_]*" * word.endswith("*"))
    nothing = "(?!)"
    return f"(?:{_BEFORE}(?:{'|'.join(spaced) or nothing}){_AFTER}|{'|'.join(anywhere) or nothing})"
