"""Does a text name a side of the body? An image whose report does must not be mirrored."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
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
    return any(found.lastgroup for form in forms for found in side.finditer(form))


@cache
def _side(language: Language) -> re.Pattern[str]:
    """Return a pattern for what names a side (group ``side``) or only looks like it."""
    sides = language.table.sides
    anywhere = "|".join(filter(is_unspaced, sides.words)) or "(?!)"
    words = [word for word in sides.words if not is_unspaced(word)]
    never, spelt, abbreviations = map(_any, (sides.never, words, sides.abbreviations))
    spaced = f"{never}{_AFTER}|(?P<side>(?:(?i:{spelt})|{abbreviations}){_AFTER})"
    # Tried where a word begins with one of these letters alone: most do not.
    first = _first_letters([*sides.never, *words, *sides.abbreviations])
    return re.compile(f"{_BEFORE}(?=[{first}])(?:{spaced})|(?P<anywhere>{anywhere})")


def _any(words: Sequence[str]) -> str:
    """Return a pattern for any of ``words``, their stars as any ending."""
    stems = [any_spelling(word.removesuffix("*"), between=_BETWEEN) for word in words]
    endings = [r"[^\W_]*" if word.endswith("*") else "" for word in words]
    return f"(?:{'|'.join(map(str.__add__, stems, endings)) or '(?!)'})"


def _first_letters(words: Sequence[str]) -> str:
    """Return a set of a pattern: the first letters, in either case, with and without accents."""
    letters = {word[0] for word in words}
    letters |= {unicodedata.normalize("NFD", letter)[0] for letter in letters}
    return re.escape("".join(sorted({*map(str.lower, letters), *map(str.upper, letters)})))
