"""Sections of a radiology report, and which of them are the target text.

The rules are those of MIMIC-CXR's own section parser (MIT-LCP/mimic-cxr, ``section_parser.py``),
kept with their oddities so that targets are the ones published tables were made from:

1. A header is a newline, a space, capitals (also space, brackets, slash, comma, hyphen), a colon
   and one white space. Digits and small letters never match, nor does the first line.
2. After a header the search resumes at the next newline: a second header on the same line
   belongs to the first one's text.
3. Names are mapped (``section_name``). Trap: "ndication" becomes impression, not indication.
4. Blank findings and impressions are dropped. If neither is left, the last section is cut at
   its first blank line (newline, space, newline), and what follows is "last_paragraph".

A report in another language is cut by the headers of its table (``lapvqa.text.languages``) and the
English ones, wherever they begin a line or follow an ideographic full stop: in any case, with or
without accents, before a colon (: or ：), in brackets, or alone on the line.

Of several sections of one name the last counts: wet reads and addenda stand above the final
report, so theirs give way to its own, and count only where it has none. (An addendum below the
report, which MIMIC-CXR does not have, would replace it; under plain headers it does not.)
MIMIC-CXR's list of 54 studies treated by hand is not applied: it is MIMIC-CXR's to distribute.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Literal

from lapvqa.text.languages import ENGLISH, Language, any_spelling, fold

Wanted = Literal["findings", "impression", "both"]

FULL_REPORT = "full report"
PREAMBLE = "preamble"
LAST_PARAGRAPH = "last_paragraph"
_TARGETS = ("findings", "impression")

_HEADER = re.compile(r"\n ([A-Z ()/,-]+):\s")
# The rules ask for newline-space-newline; the optional \r admits files with DOS line ends.
_BLANK_LINE = re.compile(r"\n \r?\n")
_ANY_BLANK_LINE = re.compile(r"\n[ \t]*\r?\n")

_SPELLINGS = {
    "impression": (
        "impression", "conclusion", "findings and impression", "findings/impression",
        "findings/ impression", "ndication", "impresson", "imprression", "imoression",
        "impressoin", "imprssion", "impresion", "imperssion", "mpression", "impession",
    ),
    "findings": (
        "findings", "chest, two views", "finding", "findins", "findindgs", "findgings", "findngs",
        "findnings", "finidngs", "reference findings",
    ),
    "indication": (
        "indication", "reason for examination", "reason for exam", "clinical indication",
        "idication",
    ),
    "history": (
        "history", "clinical history", "clinical information", "patient history", "pfi",
    ),
    "comparison": (
        "comparison", "comparisons", "reference exam", "comparison exam", "comparison film",
        "comparision", "comparsion", "comparrison", "comparisions",
    ),
    "examination": ("examination", "exam", "type of examination"),
    "technique": ("technique",),
    "recommendations": ("recommendations", "recommendation", "recommendation(s)"),
    "notification": ("notification",),
    "wet read": ("wet read", "wetread"),
    "addendum": ("addendum",),
    "comment": ("comment",),
    "date": ("date",),
    # As in the original: these misspellings do not reach impression.
    "conclusion": ("concusion", "coinclusion"),
}  # fmt: skip
_NAMES = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings}
_CONTAINED = ("impression", "findings", "history", "comparison", "addendum")
# A header that names the examination stands above what was seen in it.
_VIEWS = (
    "chest", "portable", "pa and lateral", "lateral and pa", "ap and lateral", "lateral and ap",
    "frontal and", "two views", "frontal view", "pa view", "ap view", "one view", "lateral view",
    "bone window", "frontal upright", "frontal semi-upright", "ribs", "pa and lat",
)  # fmt: skip

# Around a header of another language: numbers and signs before it; a remark in brackets after it.
_SPACE = r"[ \t\u3000\u00a0]"
_NUMBER = r"\d{1,2}[.)、]|[一二三四五六七八九十][、.]"
_BEFORE = rf"{_SPACE}*(?:(?:[-*#=_•■◆●□◇○]+|{_NUMBER}){_SPACE}*)?"
_REMARK = rf"(?:{_SPACE}*[(（][^()（）\n]{{0,60}}[)）])?"
_BRACKETS = (r"\[【〔［〖「『<＜《", r"\]】〕］〗」』>＞》")


@dataclass(frozen=True)
class Section:
    """A named stretch of a report: characters ``start`` to ``end`` (exclusive)."""

    name: str
    start: int
    end: int

    def text(self, report: str) -> str:
        """Return the section's characters."""
        return report[self.start : self.end]


class Verdict(StrEnum):
    """The sections that a report's target text is made of, or the reason why it has none."""

    FINDINGS_AND_IMPRESSION = "findings+impression"
    FINDINGS = "findings"
    IMPRESSION = "impression"
    LAST_PARAGRAPH = "last_paragraph"
    FULL_REPORT = "full_report"
    NO_REPORT = "no_report"
    EMPTY_REPORT = "empty_report"
    NO_SECTION = "no_section"
    EMPTY_SECTION = "empty_section"

    @property
    def has_text(self) -> bool:
        """Whether there is a text to learn."""
        return self in _MADE_OF.values()


_MADE_OF = {
    ("findings", "impression"): Verdict.FINDINGS_AND_IMPRESSION,
    ("findings",): Verdict.FINDINGS,
    ("impression",): Verdict.IMPRESSION,
    (LAST_PARAGRAPH,): Verdict.LAST_PARAGRAPH,
    (FULL_REPORT,): Verdict.FULL_REPORT,
}


@dataclass(frozen=True)
class TargetText:
    """The text to learn, where it stood in the report, and the verdict.

    ``text`` is empty and ``spans`` is () unless ``verdict.has_text``.
    """

    text: str
    spans: tuple[Section, ...]
    verdict: Verdict


def normalise(text: str) -> str:
    """Collapse white space to single spaces and strip; everything else, ``___`` too, is kept."""
    return " ".join(text.split())


def section_name(header: str) -> str:
    """Map a header (without its colon) to the section's name; unknown ones stay, lower-cased."""
    name = header.lower().strip()
    if name in _NAMES:
        return _NAMES[name]
    for part in _CONTAINED:
        if part in name:
            return part
    return "findings" if any(view in name for view in _VIEWS) else name


def parse(report: str) -> list[Section]:
    """Cut a report into sections by MIMIC-CXR's rules, in order, blank targets dropped."""
    return _apply_rule_4(report, _headed(report), _BLANK_LINE)


def parse_plain(report: str, language: Language | None = None) -> list[Section]:
    """Cut a report at lines that begin with a known section name and a colon, in any case.

    In another language than English also at names in brackets or alone on a line. Rule 4 applies,
    to any kind of blank line.
    """
    pattern, names = _headers(language)
    headers = list(pattern.finditer(report))
    if not headers:
        return [Section(FULL_REPORT, 0, len(report))]
    ends = [header.start() for header in headers[1:]] + [len(report)]
    sections = [Section(PREAMBLE, 0, headers[0].start())] + [
        Section(_name_in(names, header[header.lastgroup or 1]), header.end(), end)
        for header, end in zip(headers, ends, strict=True)
    ]
    return _apply_rule_4(report, sections, _ANY_BLANK_LINE)


def _name_in(names: dict[str, str], header: str) -> str:
    return names.get(fold(header)) or section_name(header)


@cache
def _headers(language: Language | None) -> tuple[re.Pattern[str], dict[str, str]]:
    """Return the pattern of a language's headers, and the section of each as ``fold`` writes it."""
    names = {spelling: section_name(spelling) for spelling in _NAMES}
    if language is None:
        return _with_colon(names), names
    own = [header for _, header in language.table.sections.pairs()]
    names |= language.sections
    if language.code == ENGLISH:
        return _with_colon([*_NAMES, *own]), names
    words = _any([*own, *_NAMES])
    opening, closing = _BRACKETS
    return re.compile(
        rf"(?:^|(?<=[。；])){_BEFORE}(?:"
        rf"[{opening}]{_SPACE}*(?P<bracketed>{words}){_REMARK}{_SPACE}*[{closing}]{_SPACE}*[:：]?"
        rf"|(?P<before_colon>{words}){_REMARK}{_SPACE}*\**{_SPACE}*[:：]\**"
        rf"|(?<![。；])(?P<alone>{words}){_REMARK}{_SPACE}*[-*#=_]*{_SPACE}*\r?$)",
        re.IGNORECASE | re.MULTILINE,
    ), names


def _with_colon(words: Iterable[str]) -> re.Pattern[str]:
    """Return the pattern of English headers where a hospital does not write as MIMIC-CXR does."""
    spelt = "|".join(sorted(map(re.escape, words), key=len, reverse=True))
    return re.compile(rf"^[ \t]*({spelt})[ \t]*:", re.IGNORECASE | re.MULTILINE)


def _any(words: Iterable[str]) -> str:
    longest_first = sorted(words, key=len, reverse=True)
    return "|".join(any_spelling(word, between=f"{_SPACE}+") for word in longest_first)


def target_text(report: str | None, wanted: Wanted, language: Language | None = None) -> TargetText:
    """Choose the target text of a report; ``language`` None is one that is not known.

    ``both`` is findings then impression, or the one that is there; without either the last
    paragraph, or all of a report that has no header. ``findings`` and ``impression`` have no
    substitute. English headers are MIMIC-CXR's, or plain ones where those give nothing; those of
    another language are plain. The text is normalised; the spans are those of the report as given.
    """
    if report is None:
        return TargetText("", (), Verdict.NO_REPORT)
    if not _has_words(report):
        return TargetText("", (), Verdict.EMPTY_REPORT)
    if language is None or language.code == ENGLISH:
        last = _english(report, wanted, language)
    else:
        last = _before_addenda(parse_plain(report, language))
    present = [last[name] for name in _choose(last, wanted)]
    if not present:
        return TargetText("", (), Verdict.NO_SECTION)
    spans = tuple(section for section in present if _has_words(section.text(report)))
    if not spans:
        return TargetText("", (), Verdict.EMPTY_SECTION)
    text = " ".join(normalise(section.text(report)) for section in spans)
    return TargetText(text, spans, _MADE_OF[tuple(section.name for section in spans)])


def _english(report: str, wanted: Wanted, language: Language | None) -> dict[str, Section]:
    """Return the sections by name: MIMIC-CXR's, or plain ones where those give nothing."""
    last = {section.name: section for section in parse(report)}
    headless = set(last) <= {FULL_REPORT, LAST_PARAGRAPH}
    if headless or not _choose(last, wanted):
        plain = _before_addenda(parse_plain(report, language))
        if not headless:  # its last paragraph is no target: MIMIC-CXR's rules saw none
            return {name: plain[name] for name in _TARGETS if name in plain}
        if FULL_REPORT not in plain:
            return plain
    return last


def _before_addenda(sections: list[Section]) -> dict[str, Section]:
    """Return the last section of each name, where an addendum below the report replaces none."""
    last: dict[str, Section] = {}
    before: set[str] = set()
    for section in sections:
        if section.name == "addendum" and not before:
            before = set(last)
        if section.name not in before:
            last[section.name] = section
    return last


def _choose(last: dict[str, Section], wanted: Wanted) -> list[str]:
    """Return the names to use, in the order of the target text."""
    names = _TARGETS if wanted == "both" else (wanted,)
    present = [name for name in names if name in last]
    if present or wanted != "both":
        return present
    return [name for name in (FULL_REPORT, LAST_PARAGRAPH) if name in last][-1:]


def _headed(report: str) -> list[Section]:
    """Cut at every header (rules 1 to 3); the text before the first one is the preamble."""
    header = _HEADER.search(report)
    if header is None:
        return [Section(FULL_REPORT, 0, len(report))]
    sections = [Section(PREAMBLE, 0, header.start(1))]
    while header is not None:
        start = header.end()
        line_end = report.find("\n", start)
        following = _HEADER.search(report, start if line_end < 0 else line_end)
        end = len(report) if following is None else following.start()
        sections.append(Section(section_name(header[1]), start, end))
        header = following
    return sections


def _apply_rule_4(
    report: str, sections: list[Section], blank_line: re.Pattern[str]
) -> list[Section]:
    """Drop blank targets; without any target left, cut the last section at its blank line."""
    kept = [
        section
        for section in sections
        if section.name not in _TARGETS or section.text(report).strip()
    ]
    if not any(section.name in _TARGETS for section in kept):
        kept[-1:] = _split_last(report, kept[-1], blank_line)
    return kept


def _split_last(report: str, section: Section, marker: re.Pattern[str]) -> list[Section]:
    """Cut a section at its first blank line, unless nothing follows it."""
    blank = marker.search(report, section.start, section.end)
    if blank is None or not _has_words(report[blank.end() : section.end]):
        return [section]
    return [
        Section(section.name, section.start, blank.start()),
        Section(LAST_PARAGRAPH, blank.end(), section.end),
    ]


def _has_words(text: str) -> bool:
    return any(character.isalnum() for character in text)
