"""Bytes to text: which encoding a report is written in, by a stated order of tests.

1. A byte order mark: UTF-8, UTF-16, UTF-32, GB18030.
2. ISO-2022 escapes (Japanese, Korean), which are plain ASCII bytes.
3. UTF-8, if every byte fits: other encodings do not look like it by chance.
4. UTF-16 without a mark, if there are zero bytes.
5. Western Europe (Windows-1252), Turkish, central Europe, DOS: a letter beyond ASCII stands within
   words, is one that these languages use, and signs stand outside of words.
6. Cyrillic and Greek: the commonest letters are those of the language.
7. Japanese, Korean, simplified and traditional Chinese: most pairs of bytes are common characters.

What passes none of these is refused: a guess would be trained on as mojibake. charset-normalizer,
which is installed with requests, gets 31 of the 48 texts of tests/ingest/test_encodings.py right at
2 ms each; these rules get all of them, at 10 to 100 microseconds.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from dataclasses import dataclass

from lapvqa.dicom.reasons import Reason
from lapvqa.errors import DicomError

UTF8 = "utf-8"
_MARKS = (
    (codecs.BOM_UTF8, UTF8),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (b"\x84\x31\x95\x33", "gb18030"),
)
_ESCAPES = ((b"\x1b$)C", "iso2022_kr"), (b"\x1b$", "iso2022_jp_2"))
_SAMPLE = 1 << 18
"""Characters are counted in so many bytes; the whole has to fit the encoding all the same."""

# Letters beyond ASCII that the languages of an encoding use, and signs that any of them may use.
_WESTERN = "àáâãäåæçèéêëìíîïñòóôõöøœùúûüÿßÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØŒÙÚÛÜŸẞ"
_TURKISH = "çğıöşüâîûÇĞİÖŞÜÂÎÛ"
_CENTRAL = "ąćęłńóśźżáčďéěíňřšťúůýžäôľĺŕöőüűăâîşţđßĄĆĘŁŃÓŚŹŻÁČĎÉĚÍŇŘŠŤÚŮÝŽÄÔĽĹŔÖŐÜŰĂÂÎŞŢĐ"
_SIGNS = frozenset(" ¡¢£¤¥¦§¨©ª«¬\xad®¯°±²³´µ¶·¸¹º»¼½¾¿×÷€„…‰‹›‘’“”•–—™ˆ˜√≤≥≈∆Ω")
_BETWEEN_LETTERS = frozenset("’‘´·\xad–—…/µªº \xa0°±×")
_SINGLE = (
    ("cp1252", frozenset(_WESTERN)),
    ("cp1254", frozenset(_TURKISH)),
    ("cp1250", frozenset(_CENTRAL)),
    ("cp850", frozenset(_WESTERN)),
)
_CYRILLIC, _GREEK = frozenset("оеаинтсрвл"), frozenset("αειοτνσηρπςάέίόήύώ")
_ALPHABETS = (
    ("cp1251", _CYRILLIC), ("koi8_r", _CYRILLIC), ("cp866", _CYRILLIC), ("iso8859_5", _CYRILLIC),
    ("cp1253", _GREEK),
)  # fmt: skip
_FEWEST_LETTERS = 8
_COMMON_SHARE = 0.5  # of the letters; a text read in another alphabet's place has about 0.3
_PAIR = re.compile(rb"[\x81-\xfe][\x40-\xfe]|[\x80-\xff]", re.DOTALL)
_KANA_SHARE = 0.15
_COMMON_PAIRS = 0.9
_COMMON_GB = 0.7
_FEWEST_HANGUL = 6


@dataclass(frozen=True)
class Decoded:
    """A text and the encoding that it was written in."""

    text: str
    encoding: str


def decode(data: bytes, *, stated: str | None = None) -> Decoded:
    """Return the text; ``stated`` is an encoding that somebody named, and the only one tried.

    Raises DicomError BAD_REPORT for bytes that are no text, REPORT_ENCODING for a text whose
    encoding is none of the known ones.
    """
    encoding = stated or detect(data)
    mark = next((mark for mark, name in _MARKS if data.startswith(mark)), b"")
    try:
        text = data[len(mark) :].decode(encoding)
    except (UnicodeDecodeError, LookupError):
        raise DicomError(
            Reason.REPORT_ENCODING, f"expected a text in {encoding[:16]}, found other bytes"
        ) from None
    if "\0" in text:
        raise DicomError(Reason.BAD_REPORT, "expected a text, found a file of another kind")
    return Decoded(text, encoding)


def detect(data: bytes) -> str:
    """Return the encoding of ``data``, a name that Python knows; raises as ``decode`` does."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding
    for escape, encoding in _ESCAPES:
        if escape in data and _fits(data, encoding):
            return encoding
    if _fits(data, UTF8) and b"\0" not in data:
        return UTF8
    if b"\0" in data:
        return _utf16_without_mark(data)
    sample = _high_parts(data)
    tests: tuple[tuple[str, Callable[[], bool]], ...] = (
        *((name, lambda n=name, s=letters: _in_words(sample, n, s)) for name, letters in _SINGLE),
        *(
            (name, lambda n=name, s=common: _in_alphabet(sample, n, s))
            for name, common in _ALPHABETS
        ),  # fmt: skip
        *((name, lambda t=test: t(sample)) for name, test in _MULTIBYTE),
    )
    for encoding, passes in tests:
        if passes() and _fits(data, encoding):
            return encoding
    raise DicomError(
        Reason.REPORT_ENCODING, "expected a text in a known encoding, found bytes of none"
    )


def _fits(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _utf16_without_mark(data: bytes) -> str:
    # Even a Chinese text has spaces, digits or line ends, whose zero byte is the first or second.
    encoding = "utf-16-le" if data[1::2].count(0) > data[::2].count(0) else "utf-16-be"
    if _fits(data, encoding):
        text = data.decode(encoding)
        known = sum(char.isprintable() or char in "\t\r\n\f\v" for char in text)
        if "\0" not in text and known == len(text):
            return encoding
    raise DicomError(Reason.BAD_REPORT, "expected a text, found a file of another kind")


def _high_parts(data: bytes) -> bytes:
    """Return the lines with bytes beyond ASCII, up to ``_SAMPLE``: no other line says anything."""
    lines, size = [], 0
    for line in data.split(b"\n"):
        if not line.isascii():
            lines.append(line)
            size += len(line)
            if size > _SAMPLE:
                break
    return b"\n".join(lines)


def _in_words(data: bytes, encoding: str, letters: frozenset[str]) -> bool:
    """Tell whether letters beyond ASCII stand in words of ASCII letters, and signs outside them."""
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return False
    run = 0
    for before, char, after in zip(" " + text, text, text[1:] + " ", strict=False):
        if char.isascii():
            run = 0
            continue
        if char in letters:
            run += 1
            # créée has two such letters in a row, nerozšířen three; GB 2312 has four in two signs.
            if run > 3 or (before.islower() and char.isupper()):
                return False
        elif char not in _SIGNS or (
            before.isalpha() and after.isalpha() and char not in _BETWEEN_LETTERS
        ):
            return False
    return True


def _in_alphabet(data: bytes, encoding: str, common: frozenset[str]) -> bool:
    """Tell whether a text is in another alphabet: common letters, capitals first in words."""
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return False
    letters = [char for char in text if not char.isascii() and char.isalpha()]
    others = [char for char in text if not char.isascii() and not char.isalpha()]
    turned = sum(a.islower() and b.isupper() for a, b in zip(text, text[1:], strict=False))
    return (
        len(letters) >= _FEWEST_LETTERS
        and sum(char.lower() in common for char in letters) >= _COMMON_SHARE * len(letters)
        and all(char in _SIGNS or char == "№" for char in others)
        and turned <= 0.02 * len(letters)
    )


def _pairs(data: bytes) -> list[bytes]:
    return _PAIR.findall(data)


def _share(pairs: list[bytes], *ranges: tuple[int, int], trail: int = 0x40) -> float:
    """Return the share of pairs whose lead byte lies in a range and whose trail is high enough."""
    hits = sum(
        len(pair) == 2 and pair[1] >= trail and any(low <= pair[0] <= high for low, high in ranges)
        for pair in pairs
    )
    return hits / len(pairs) if pairs else 0.0


def _is_euc_jp(data: bytes) -> bool:
    pairs = _pairs(data)
    kana = _share(pairs, (0xA4, 0xA5), trail=0xA1)
    return kana >= _KANA_SHARE and _share(pairs, (0xA1, 0xCF), trail=0xA1) >= _COMMON_PAIRS


def _is_shift_jis(data: bytes) -> bool:
    pairs = _pairs(data)
    kana = _share(pairs, (0x82, 0x83))
    return kana >= _KANA_SHARE and _share(pairs, (0x81, 0x97)) >= _COMMON_PAIRS


def _is_euc_kr(data: bytes) -> bool:
    # Hangul are the rows B0 to C8; in Chinese half of all characters lie beyond those.
    pairs = [pair for pair in _pairs(data) if not (len(pair) == 2 and 0xA1 <= pair[0] <= 0xAF)]
    hangul = _share(pairs, (0xB0, 0xC8), trail=0xA1)
    return len(pairs) >= _FEWEST_HANGUL and hangul >= 0.95


def _is_gb(data: bytes) -> bool:
    # The 3,755 common characters of GB 2312 are the rows B0 to D7, signs A1 to A3. Radiology needs
    # some that are not among them; of a text in Big5 a third lies there.
    return _share(_pairs(data), (0xA1, 0xA3), (0xB0, 0xD7), trail=0xA1) >= _COMMON_GB


def _is_big5(data: bytes) -> bool:
    # The common characters are the rows A4 to C6, signs A1 to A3; half the trails are below 7F.
    return _share(_pairs(data), (0xA1, 0xC6)) >= _COMMON_PAIRS


_MULTIBYTE: tuple[tuple[str, Callable[[bytes], bool]], ...] = (
    ("euc_jp", _is_euc_jp),
    ("cp932", _is_shift_jis),
    ("euc_kr", _is_euc_kr),
    ("gb18030", _is_gb),
    ("big5", _is_big5),
    ("cp950", _is_big5),
)
