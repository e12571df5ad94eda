"""Protected health information (PHI) in reports: a safety net under a de-identified archive.

It is no de-identifier. Found, where the archive's own ___ or XXXX did not remove them: names that a
title, a degree or a label gives away ("Dr. Smith", "Smith, M.D.", "signed by", "Patient:"); dates
with at least month and year or month and day; numbers of records (labelled, or seven digits in a
row), of telephones and pagers; e-mail addresses; streets with a house number, P.O. boxes, ZIP codes
after a state.

Not promised: names that nothing gives away ("Patient Jane Doe", "Nurse Jane"), MR. and MS. in
capitals (they are diagnoses and techniques), a date in digits that may be a fraction
("since 5/6"), ages, years alone, hospitals, cities, languages other than English. Seven digits or
more are taken for a record number. A report in which nothing is found may still identify someone.

Measured: nothing found in the 3,955 reports of Open-i; three spans, all of them true dates, in 181
case reports in MIMIC-CXR's format. Planted identities: see tests/text/test_phi.py. A report of 800
characters takes 40-65 microseconds on one core.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class PhiSpan:
    """Characters ``start`` to ``end`` (exclusive) of a report that may identify somebody."""

    kind: str
    start: int
    end: int


def _either_case(*words: str) -> str:
    """Return a pattern for any of ``words``; each begins with a plain set, which fails fast."""
    return "|".join(f"[{word[0].upper()}{word[0]}](?i:{re.escape(word[1:])})" for word in words)


# Names. A part of one: Smith, O'Brien, Smith-Jones, SMITH; or an initial. A name never crosses a
# line. Every repetition is bounded, so each start costs a bounded number of steps.
_UPPER = "A-ZÀ-ÖØ-Þ"
_NOT_A_NAME = (
    r"(?!(?i:X{2,}|a|about|all|also|an|and|are|as|at|attending|available|by|can|cardiology|chest"
    r"|department|doctor|dr|ed|emergency|er|female|findings|for|from|has|have|he|her|his|history|house|icu"
    r"|impression|in|indication|intern|is|it|male|man|may|medical|medicine|mrs?|ms|na|no|none|not|nurse"
    r"|nursing|of|office|on|or|patient|phone|physician|prof|professor|pulmonary|radiologists?|radiology"
    r"|regarding|resident|s|she|staff|surgery|team|telephone|that|the|this|to|unknown|via|was"
    r"|were|who|will|with|woman|years?)\b)"
)
_PART = rf"{_NOT_A_NAME}[{_UPPER}](?:[^\W\d_]|[-'’](?=[{_UPPER}])){{1,30}}\b(?!_)"
_ANY_PART = rf"{_NOT_A_NAME}[^\W\d_](?:[^\W\d_]|[-'’](?=[{_UPPER}])){{1,30}}\b(?!_)"
_INITIAL = rf"[{_UPPER}](?:\.[ \t]?|[ \t])"
_PARTICLE = r"(?:(?:van|von|de|del|la|der|den|di|da|bin|al)[ \t]){1,2}"
_ONE = rf"(?:{_INITIAL}){{0,2}}(?:{_PARTICLE})?{_PART}"
_NAME = rf"{_ONE}(?:[ \t]{_ONE}){{0,3}}"
_LISTED = rf"{_ONE}(?:,?[ \t]{_ONE}){{0,3}}"
_FULL = rf"{_ONE}(?:,?[ \t]{_ONE}){{1,3}}"
_GAP = r"[ \t]{0,3}\n?[ \t]{0,3}"
_COLON = rf"(?:{_GAP}:{_GAP}|[ \t]{{1,3}})"
_LONGEST_NAME = 40
_DEGREE = r"(?:(?<=M)(?:\.?D|BBS)|(?<=D)\.?O|(?<=P)(?:h\.?D|\.?A-?C)|(?<=R)\.?N|(?<=F)RCR)\b\.?"

# Dates. Case matters in "May 5"; months in capitals need a year.
_MONTH = (
    r"(?:Jan(?:uary|\.)?|Feb(?:ruary|\.)?|Mar(?:ch|\.)?|Apr(?:il|\.)?|May|June?|July?|Aug(?:ust|\.)?"
    r"|Sept?(?:ember|\.)?|Oct(?:ober|\.)?|Nov(?:ember|\.)?|Dec(?:ember|\.)?)"
)
_YEAR = r"(?:19|20)\d\d\b"
_DAY = r"(?:[12]\d|3[01]|0?[1-9])"
_MONTH_NUMBER = r"(?:1[0-2]|0?[1-9])"
_MONTH_CAPITALS = r"(?:JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC)[A-Z]{0,6}"
_NOT_COUNTED = r"(?![ \t]?(?i:ribs?|th|intercostal|vertebra|cm|mm|levels?|[x%])\b)(?![-/.]?\d)"

_STREET = (
    r"(?:Street|STREET|Avenue|AVENUE|Road|ROAD|Boulevard|BOULEVARD|Lane|LANE|Drive|DRIVE|Court"
    r"|Parkway|PARKWAY|Highway|HIGHWAY|Terrace|Square|Circle|(?:St|Ave|AVE|Rd|Blvd|BLVD|Ln|Dr|Ct"
    r"|Pkwy|Hwy)\b\.?)"
)


@dataclass(frozen=True)
class _Rule:
    """A kind's pattern; tried only if one of the cues (lower case) occurs: that test is cheap."""

    kind: str
    cues: tuple[str, ...]
    pattern: re.Pattern[str]


def _rule(kind: str, cues: tuple[str, ...], before: str, thing: str) -> _Rule:
    return _Rule(kind, cues, re.compile(rf"\b(?:{before})(?P<thing>{thing})"))


def _labelled(
    kind: str, words: tuple[str, ...], between: str, thing: str, *, cues: tuple[str, ...] = ()
) -> _Rule:
    """Return a rule for any of ``words`` in upper or lower case; they are their own cues."""
    return _rule(kind, cues or words, rf"(?:{_either_case(*words)}){between}", thing)


# "primary", "decreased", "may" are common words: a month's short form is cued by what ends it.
_MONTH_CUES = (
    "jan", "feb", "mar ", "mar.", "march ", "apr", "may ", "jun", "jul",
    "aug", "sep", "oct", "nov", "dec ", "dec.", "december",
)  # fmt: skip
_NUMBER_SIGN = rf"\b\.?(?i:[ \t]?(?:number|num|no|id|nr|is)\b\.?)?[ \t]?[:#]?[ \t]?[:#]?{_GAP}"
_RULES = (
    _rule(
        "name",
        ("dr.", "dr ", "mr", "ms.", "ms ", "miss ", "prof", "doctor "),
        rf"(?:[Dd]r\b\.?|DR\.|[Dd]octor|M(?:rs?|s)\b\.?|Miss|MRS\.|Prof(?:essor)?\b\.?|PROF\.)"
        rf"{_GAP}(?<=[\s.])",
        _NAME,
    ),
    _rule("name", ("dr.", "dr ", "mr.", "mrs.", "ms."), r"(?:dr\b\.?|mrs?\.|ms\.)[ \t]", _ANY_PART),
    _labelled(
        "name",
        ("patient", "name"),
        rf"(?i:['’]s name| name)?[ \t]?:{_GAP}",
        _LISTED,
        cues=("patient:", "patient :", "name"),
    ),
    _labelled(
        "name",
        (
            "physician",
            "radiologist",
            "attending",
            "resident",
            "referring",
            "technologist",
            "provider",
            "dictator",
            "transcriptionist",
        ),
        rf"(?i:[ \t](?:physician|radiologist|doctor))?[ \t]?:{_GAP}",
        _LISTED,
    ),
    _labelled("name", ("signed by", "dictated by", "transcribed by"), _COLON, _LISTED),
    _labelled(
        "name",
        (
            "read by",
            "reviewed by",
            "interpreted by",
            "verified by",
            "approved by",
            "reported by",
            "entered by",
            "performed by",
            "requested by",
            "ordered by",
            "referred by",
            "discussed with",
            "conveyed to",
            "communicated to",
            "communicated with",
            "reported to",
            "spoke with",
            "spoke to",
            "spoken to",
            "paged to",
            "given to",
        ),
        _COLON,
        _FULL,
    ),
    _rule(
        "date",
        _MONTH_CUES,
        "",
        rf"{_MONTH}[ \t](?:{_DAY}(?:st|nd|rd|th)?\b(?![/.:-]?\d|[ ]?%)(?:,?[ \t]{_YEAR})?|{_YEAR})"
        rf"|(?:{_MONTH_CAPITALS}|(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{{0,6}})"
        rf"\.?[ \t](?:{_DAY}(?i:st|nd|rd|th)?,?[ \t])?{_YEAR}",
    ),
    _labelled(
        "date",
        ("dob", "d.o.b.", "date of birth", "born on", "born in"),
        rf"[ \t]?:?{_GAP}",
        r"\d[\d/.-]{2,9}(?<=\d)(?!\d)",
    ),
    _labelled(
        "record_number",
        (
            "mrn",
            "record",
            "acc",
            "accession",
            "account",
            "patient id",
            "ssn",
            "study id",
            "unit",
            "chart",
            "mr#",
            "case",
        ),
        _NUMBER_SIGN,
        r"[A-Z]{0,4}-?\d[\d-]{1,18}\d\b",
    ),
    _labelled(
        "phone",
        ("pager", "beeper", "phone", "telephone", "tel", "fax", "ext"),
        _NUMBER_SIGN,
        r"[(+]?\d[\d(). -]{1,16}\d\b",
        cues=("pager", "beeper", "phone", "tel ", "tel.", "tel:", "fax", "ext ", "ext.", "ext:"),
    ),
    _rule("address", ("box ",), "", r"P\.?O\.?[ ]Box[ ]\d{1,6}\b"),
)
"""Spans that a word gives away."""

_DEGREES = re.compile(rf"[MDPRF](?<=[, ].){_DEGREE}(?!\w)")
_HOLDER = re.compile(rf"(?<![\w.'’-])(?:{_LISTED}),?\Z")

_NUMBERS = re.compile(
    rf"""(?:(?<![\w/])(?<!\d[.-])(?:
    (?P<date_1>(?:
        (?:{_MONTH_NUMBER}(?P<s>[/.-]){_DAY}(?P=s)|{_DAY}(?P<t>[/.-]){_MONTH_NUMBER}(?P=t))
            (?:(?:19|20)\d\d|\d\d)
      | {_MONTH_NUMBER}/(?:19|20)\d\d
      | (?:19|20)\d\d(?P<u>[/.-]){_MONTH_NUMBER}(?P=u){_DAY}
    )(?!\d){_NOT_COUNTED})
  | (?P<date_2>{_DAY}(?:st|nd|rd|th)?(?:[ ]of)?[ -](?:{_MONTH}|{_MONTH_CAPITALS}),?[ -]
        (?:{_YEAR}|\d\d\b))
  | (?P<date_3>{_DAY}(?:st|nd|rd|th)?[ ](?:of[ ])?{_MONTH}(?!\w))
  | (?:(?<=on[ ])|(?<=from[ ])|(?<=since[ ])|(?<=dated[ ])|(?<=of[ ]))
        (?P<date_4>{_MONTH_NUMBER}/(?:1[3-9]|2\d|3[01])\b){_NOT_COUNTED}
  | (?P<phone_1>(?:\+?\d{{1,3}}[ .-])?(?:\([2-9]\d\d\)[ .-]?|[2-9]\d\d[ .-])\d{{3}}[ .-]\d{{4}}\b
        (?:[ ]?(?:x|ext\.?)[ ]?\d{{1,6}})?)
  | (?P<phone_2>\+\d{{1,3}}(?:[ .-]?\(?\d{{1,5}}\)?){{2,6}}(?!\d))
  | (?P<phone_3>[2-9]\d\d[-.]\d{{4}}\b(?![-.]\d))
  | (?P<record_number_1>\d{{3}}-\d\d-\d{{4}}\b)
  | (?P<address_1>\d{{1,5}}[A-Z]?[ ](?:[NSEW]\.?[ ])?
        (?:(?:[A-Z][a-zA-Z.']{{1,20}}|\d{{1,3}}(?:st|nd|rd|th))[ ]){{1,3}}{_STREET}(?!\w))
  | (?P<address_2>\d{{1,5}}[ ][a-z]{{2,15}}[ ](?:street|avenue|road|boulevard|lane)\b)
  | (?<=,[ ][A-Z][A-Z][ ])(?P<address_3>\d{{5}}(?:-\d{{4}})?\b)
    )|(?P<record_number_2>\d{{7,}}))""",
    re.VERBOSE,
)
"""Spans that begin with a number, ( or +; tried where ``_NUMBER_STARTS`` matches."""

_NUMBER_STARTS = re.compile(r"[0-9(+](?:(?<=[0-9])[0-9]*|)")
_AT = re.compile(r"@[\w-]{1,63}(?:\.[\w-]{1,63}){1,5}")
_MAILBOX = re.compile(r"[\w.+-]{1,64}")


def find_phi(text: str) -> list[PhiSpan]:
    """Return where ``text`` may identify somebody, in order and without overlaps.

    Kinds: name, date, record_number, phone, email, address. A span holds the thing itself, not
    the word that gave it away ("Dr.", "MRN"). Time is linear in the text's length.
    """
    lowered = text.lower()
    spans = _numbers(text)
    for rule in _RULES:
        if _occurs(rule.cues, lowered):
            for match in rule.pattern.finditer(text):
                spans.append(PhiSpan(rule.kind, *match.span("thing")))
    spans += _names_before_degrees(text)
    if "@" in text:
        spans += _emails(text)
    return _without_overlaps(spans) if len(spans) > 1 else spans


def _occurs(cues: tuple[str, ...], lowered: str) -> bool:
    for cue in cues:  # any() with a generator takes three times as long  # noqa: SIM110
        if cue in lowered:
            return True
    return False


def _numbers(text: str) -> list[PhiSpan]:
    spans: list[PhiSpan] = []
    for start in _NUMBER_STARTS.finditer(text):
        if spans and start.start() < spans[-1].end:
            continue
        match = _NUMBERS.match(text, start.start())
        if match is not None:
            kind = str(match.lastgroup).rsplit("_", 1)[0]
            spans.append(PhiSpan(kind, match.start(), match.end()))
    return spans


def _names_before_degrees(text: str) -> list[PhiSpan]:
    """Return the names before a degree: Smith, M.D."""
    spans = []
    for degree in _DEGREES.finditer(text):
        first = max(0, degree.start() - _LONGEST_NAME)
        holder = _HOLDER.search(text[first : degree.start() - 1])
        if holder is not None:
            end = degree.start() - 1 - holder[0].endswith(",")
            spans.append(PhiSpan("name", first + holder.start(), end))
    return spans


def _emails(text: str) -> list[PhiSpan]:
    spans = []
    for domain in _AT.finditer(text):
        before = text[max(0, domain.start() - 64) : domain.start()]
        mailbox = _MAILBOX.match(before[::-1])
        if mailbox is not None and "__" not in mailbox[0] and "XXX" not in mailbox[0]:
            spans.append(PhiSpan("email", domain.start() - mailbox.end(), domain.end()))
    return spans


def _without_overlaps(spans: list[PhiSpan]) -> list[PhiSpan]:
    """Return the spans in order; of two that overlap, the one that begins first, or is longer."""
    kept: list[PhiSpan] = []
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        if not kept or span.start >= kept[-1].end:
            kept.append(span)
    return kept
