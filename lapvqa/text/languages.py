"""The languages of reports: a table of words per language, and which one a report is read by.

A table is params/reports/<code>.yaml: headers and the section each stands for, words that name a
side, words of negation, and common words. ``Languages.detect`` compares a report with all of them:

1. Words are looked up without case and accents, in each table's vocabulary: all that it holds but
   abbreviations. In Chinese and Japanese nothing separates words, so entries are looked for
   anywhere.
2. A word counts 1 / (number of tables that have it): what one language has alone says most.
3. The highest sum wins if that table knows at least three words in ten, and is half as high again
   as the next. If English is that near the highest, it is English.
4. Otherwise the language is unknown.

A report of unknown language is cut by English headers, or taken whole where there are none, and is
taken to name a side: its image is never mirrored.

Measured by tests/text/test_languages.py: all of Open-i's 3,955 reports are English.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from lapvqa.errors import ConfigError
from lapvqa.params import Section, read_settings

AUTO = "auto"
ENGLISH = "en"
UNKNOWN = "unknown"
"""The language of a report that no table recognises."""

SHIPPED = Path(__file__).parents[2] / "params" / "reports"

_LEAST_SHARE = 0.3
_MARGIN = 1.5

_CODE = re.compile(r"[a-z]{2,3}(?:-[a-z0-9]{2,8})*")
UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
"""Kana and ideographs, as a set of a pattern."""

_IS_UNSPACED = re.compile(f"[{UNSPACED}]")
_UNSPACED_RUN = re.compile(f"[{UNSPACED}]+")
_ASCII_WORD, _SPACED_WORD = re.compile("[a-z]+"), re.compile(rf"[^\W\d_{UNSPACED}]+")


def _word(text: str) -> str:
    if text != " ".join(text.split()) or not any(map(str.isalpha, text)):
        raise ValueError("write letters, and one space between words")
    return text


def _side_word(text: str) -> str:
    if "*" in text[:-1]:
        raise ValueError("write * at the end or not at all")
    return _word(text)


Word = Annotated[str, AfterValidator(_word)]
SideWord = Annotated[str, AfterValidator(_side_word)]


class SectionWords(Section):
    """Headers of each section, without colon; case and accents do not count."""

    findings: list[Word] = []
    impression: list[Word] = []
    indication: list[Word] = []
    history: list[Word] = []
    comparison: list[Word] = []
    technique: list[Word] = []
    examination: list[Word] = []
    recommendations: list[Word] = []
    addendum: list[Word] = []

    @model_validator(mode="after")
    def _each_once(self) -> SectionWords:
        sections: dict[str, str] = {}
        for section, header in self.pairs():
            other = sections.setdefault(fold(header), section)
            if other != section:
                raise ValueError(f"{header!r} stands under {other} and {section}; choose one")
        return self

    def pairs(self) -> Iterable[tuple[str, str]]:
        """Yield (section, header)."""
        for section in type(self).model_fields:
            for header in getattr(self, section):
                yield section, header


class SideWords(Section):
    """Words that name a side; ``*`` at the end of one stands for any ending.

    ``words`` in any case, ``abbreviations`` in this case only; ``never`` look like a side and name
    none, in this case only.
    """

    words: Annotated[list[SideWord], Field(min_length=1)]
    abbreviations: list[SideWord] = []
    never: list[SideWord] = []


class LanguageTable(Section):
    """A file of params/reports."""

    language: Word
    sections: SectionWords
    sides: SideWords
    negations: list[Word]
    words: Annotated[list[Word], Field(min_length=1)]


@dataclass(frozen=True, eq=False)
class Language:
    """A language's table, and the digest of its content."""

    code: str
    table: LanguageTable
    digest: str

    @cached_property
    def sections(self) -> dict[str, str]:
        """Section of each header, by the header as ``fold`` writes it."""
        return {fold(header): section for section, header in self.table.sections.pairs()}


class Languages:
    """All tables of a folder."""

    def __init__(self, tables: Mapping[str, LanguageTable]) -> None:
        self.by_code = {
            code: Language(code, table, _digest(table)) for code, table in sorted(tables.items())
        }
        self._codes = list(self.by_code)
        self._vocabulary = _Vocabulary([tables[code] for code in self._codes])

    @property
    def digest(self) -> str:
        """What a detected language depends on, besides the report and the code."""
        return _digest_of(f"{code} {one.digest}" for code, one in self.by_code.items())

    def rules(self, code: str | None) -> str:
        """Return what a row in a language depends on, besides its report and the code."""
        return "" if code is None else f"{code} {getattr(self.by_code.get(code), 'digest', '')}"

    def find(self, code: str) -> Language:
        """Return a language; ConfigError if it has no table."""
        if code not in self.by_code:
            raise ConfigError(
                f"params.yaml: tokens.language is {code!r}; expected auto or one of "
                f"{', '.join(self._codes)}",
                hint=f"choose one of these, or write params/reports/{code}.yaml: docs/ingest.md",
            )
        return self.by_code[code]

    def detect(self, report: str) -> Language | None:
        """Return the language of a report, None if unknown; rules above."""
        text, all_ascii = fold(report), report.isascii()
        words = (_ASCII_WORD if all_ascii else _SPACED_WORD).findall(text)
        total = len(words)
        scores, known = [0.0] * len(self._codes), [0] * len(self._codes)
        for places, times in Counter(map(self._vocabulary.__getitem__, words)).items():
            for place in places:
                known[place] += times
                scores[place] += times / len(places)
        for run in () if all_ascii else _UNSPACED_RUN.findall(text):
            total += len(run)
            for place, letters, score in self._vocabulary.find_within(run):
                known[place] += letters
                scores[place] += score
        if not total:
            return None
        best = max(scores)
        near = [
            code
            for code, score, words in zip(self._codes, scores, known, strict=True)
            if score > 0 and score * _MARGIN >= best and words >= _LEAST_SHARE * total
        ]
        if ENGLISH in near:
            return self.by_code[ENGLISH]
        return self.by_code[near[0]] if len(near) == 1 else None


class _Vocabulary(dict[str, tuple[int, ...]]):
    """Folded word -> the places of the tables that have it; every word asked for is kept."""

    def __init__(self, tables: list[LanguageTable]) -> None:
        super().__init__()
        having: dict[str, set[int]] = defaultdict(set)
        for place, table in enumerate(tables):
            for word in _words_of(table):
                having[word].add(place)
        self._places = {word: tuple(sorted(places)) for word, places in having.items()}
        self._beginnings = sorted(word[:-1] for word in having if word.endswith("*"))
        self._unspaced = [_anywhere(word for word in having if place in having[word])
                          for place in range(len(tables))]  # fmt: skip

    def __missing__(self, word: str) -> tuple[int, ...]:
        places = self._places.get(word, ())
        if not places:
            begun = [start for start in self._beginnings if word.startswith(start)]
            places = tuple(
                sorted({place for start in begun for place in self._places[f"{start}*"]})
            )
        self[word] = places
        return places

    def find_within(self, run: str) -> list[tuple[int, int, float]]:
        """Return (place, letters known, score) per table that knows a part of a run."""
        found = []
        for place, pattern in enumerate(self._unspaced):
            words = pattern.findall(run) if pattern else []
            if words:
                score = sum(len(word) / len(self._places[word]) for word in words)
                found.append((place, sum(map(len, words)), score))
        return found


def _words_of(table: LanguageTable) -> set[str]:
    """Return the folded words of a table; one with a star is kept so."""
    headers = [header for _, header in table.sections.pairs()]
    entries = [*table.words, *table.negations, *headers, *table.sides.words]
    words = {word for entry in entries for word in _any_words(fold(entry.rstrip("*")))}
    return words | {fold(word) for word in table.sides.words if word.endswith("*")}


def _any_words(text: str) -> list[str]:
    return _SPACED_WORD.findall(text) + _UNSPACED_RUN.findall(text)


def _anywhere(words: Iterable[str]) -> re.Pattern[str] | None:
    """Return a pattern for those of ``words`` that are ideographs or kana, longest first."""
    unspaced = sorted(filter(is_unspaced, words), key=len, reverse=True)
    return re.compile("|".join(unspaced)) if unspaced else None


def is_unspaced(word: str) -> bool:
    """Return whether a word begins with an ideograph or kana: nothing separates it from others."""
    return _IS_UNSPACED.match(word) is not None


def has_unspaced(text: str) -> bool:
    """Return whether a text has an ideograph or kana."""
    return _IS_UNSPACED.search(text) is not None


def fold(text: str) -> str:
    """Return ``text`` as words are compared: no case, no accents, simple spaces."""
    if not text.isascii():
        parts = unicodedata.normalize("NFKD", text)
        text = "".join(part for part in parts if not unicodedata.combining(part))
    return " ".join(text.casefold().split())


def any_spelling(words: str, *, between: str) -> str:
    """Return a pattern for ``words``: accents in a letter, beside it or left out.

    ``between``: the pattern that stands for a space.
    """
    pattern = ""
    for character in unicodedata.normalize("NFC", words):
        base, *marks = list(unicodedata.normalize("NFD", character))
        if character == " ":
            pattern += between
        elif marks:
            optional = "?" if base.isascii() else ""  # kana are others without theirs
            pattern += f"(?:{character}|{base}{''.join(mark + optional for mark in marks)})"
        else:
            pattern += re.escape(character)
    return pattern


def load_languages(root: Path) -> Languages:
    """Read the tables of a project, params/reports/*.yaml, or the shipped ones if it has none.

    Raises ConfigError that names file and key for what is malformed.
    """
    folder = root / "params" / "reports"
    if not folder.is_dir():
        folder = SHIPPED
    tables = {}
    for path in sorted(folder.glob("*.yaml")):
        if not _CODE.fullmatch(path.stem):
            raise ConfigError(
                f"params/reports/{path.name}: expected a language code as name, like de.yaml",
                hint="rename the file",
            )
        tables[path.stem] = read_settings(LanguageTable, path, f"params/reports/{path.name}")
    if ENGLISH not in tables:
        raise ConfigError(
            "expected params/reports/en.yaml, found none",
            hint="restore it: git checkout params/reports",
        )
    return Languages(tables)


def _digest(table: LanguageTable) -> str:
    return _digest_of([table.model_dump_json()])


def _digest_of(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
