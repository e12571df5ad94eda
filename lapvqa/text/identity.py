"""Identifying text in reports: a safety net under a de-identified archive, not a de-identifier."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Mark:
    """One place: characters ``start`` to ``end`` (exclusive)."""

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
    r"|department|ed|emergency|er|female|findings|for|from|has|have|he|her|his|history|house|icu"
    r"|impression|in|indication|intern|is|it|male|man|may|medical|medicine|na|no|none|not|nurse"
    r"|nursing|of|office|on|or|patient|phone|physician|pulmonary|radiologists?|radiology"
    r"|regarding|resident|s|she|staff|surgery|team|telephone|that|the|this|to|unknown|via|was"
    r"|were|who|will|with|woman|years?)\b)"
)
_PART = rf"{_NOT_A_NAME}[{_UPPER}](?:[^\W\d_]|[-'’](?=[{_UPPER}])){{1,30}}\b(?!_)"
_ANY_PART = rf"{_NOT_A_NAME}[^\W\d_](?:[^\W\d_]|[-'’](?=[{_UPPER}])){{1,30}}\b(?!_)"
_INITIAL = rf"[{_UPPER}](?:\.[ \t]?|[ \t])"
_PARTICLE = r"(?:(?:van|von|de|del|la|der|den|di|da|bin|al)[ \t]){1,2}"
_ONE = rf"(?:{_INITIAL}){{0,2}}(?:{_PARTICLE})?{_PART}"
_NAME = rf"{_ONE}(?:[ \t]{_ONE}){{0,2}}"
_LISTED = rf"{_ONE}(?:,?[ \t]{_ONE}){{0,2}}"
_FULL = rf"{_ONE}(?:,?[ \t]{_ONE}){{1,2}}"
_GAP = r"[ \t]{0,3}\n?[ \t]{0,3}"
_COLON = rf"(?:{_GAP}:{_GAP}|[ \t]{{1,3}})"
_DEGREE = r"(?:M\.?D|D\.?O|Ph\.?D|R\.?N|MBBS|FRCR|P\.?A-?C)\b\.?"

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

_WORDS = re.compile(
    rf"""\b(?:
    (?:[Dd]r\b\.?|DR\.|{_either_case("doctor")})(?:[ \t]{{1,3}}|{_GAP}(?<=\s)|(?<=\.))
        (?P<name_1>{_NAME})
  | (?:dr\b\.?|mrs\.|mr\.|ms\.)[ \t](?P<name_2>{_ANY_PART})
  | (?:Mrs|Mr|Ms|Miss|Prof|Professor|MRS(?=\.)|PROF(?=\.))\b\.?{_GAP}(?<=[\s.])(?P<name_3>{_NAME})
  | (?P<name_4>{_NAME}),?[ \t]{{1,2}}(?:{_DEGREE})(?![\w])
  | (?:{_either_case("patient name", "patient's name", "name", "patient")})[ \t]?:{_GAP}
        (?P<name_5>{_LISTED})
  | (?:{
        _either_case(
            "physician",
            "radiologist",
            "attending",
            "resident",
            "referring",
            "technologist",
            "dictator",
            "transcriptionist",
            "provider",
        )
    })(?i:[ \t]physician|[ \t]radiologist|[ \t]doctor)?[ \t]?:{_GAP}(?P<name_6>{_LISTED})
  | (?:{_either_case("signed", "dictated", "transcribed")})(?i:[ \t]by){_COLON}(?P<name_7>{_LISTED})
  | (?:{
        _either_case(
            "read",
            "reviewed",
            "interpreted",
            "verified",
            "approved",
            "reported",
            "entered",
            "performed",
            "requested",
            "ordered",
            "referred",
        )
    })(?i:[ \t]by){_COLON}(?P<name_8>{_FULL})
  | (?:{
        _either_case(
            "discussed", "conveyed", "communicated", "reported", "spoke", "spoken", "paged", "given"
        )
    })(?i:[ \t](?:with|to)){_COLON}(?P<name_9>{_FULL})
  | (?P<date_1>{_MONTH}[ \t](?:{_DAY}(?:st|nd|rd|th)?\b(?![/.:-]?\d)(?:,?[ \t]{_YEAR})?|{_YEAR}))
  | (?P<date_2>{_MONTH_CAPITALS}\.?[ \t]
        (?:{_DAY}(?:ST|ND|RD|TH)?,?[ \t])?{_YEAR})
  | (?P<date_3>(?:jan|feb|mar|apr|jun|jul|aug|sep|oct|nov|dec|may)[a-z]{{0,6}}\.?[ \t]
        {_DAY}(?:st|nd|rd|th)?,?[ \t]{_YEAR})
  | (?:{_either_case("dob", "d.o.b.", "date of birth", "born on")})[ \t]?:?{_GAP}
        (?P<date_4>\d[\d/.-]{{2,9}}(?<=\d)(?!\d))
  | (?:{
        _either_case(
            "mrn",
            "medical record",
            "record",
            "accession",
            "acc",
            "account",
            "patient id",
            "ssn",
            "study id",
            "case number",
            "case #",
        )
    })\b\.?(?i:[ \t]?(?:number|num|no|id|nr)\b\.?)?[ \t]?[:#]?[ \t]?[:#]?{_GAP}
        (?P<record_number_1>[A-Z]{{0,4}}-?\d[\d-]{{1,18}}\d\b)
  | (?:{
        _either_case("pager", "beeper", "phone", "telephone", "tel", "fax", "ext", "extension")
    })\b\.?(?i:[ \t](?:number|num|no|is)\b\.?)?[ \t]?[:#]?[ \t]?[:#]?{_GAP}
        (?P<phone_1>[(+]?\d[\d(). -]{{1,16}}\d\b)
  | (?P<address_1>P\.?O\.?[ ]Box[ ]\d{{1,6}}\b)
    )""",
    re.VERBOSE,
)
"""Marks that begin with a word."""

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
"""Marks that begin with a number, ( or +; tried where ``_NUMBER_STARTS`` finds one."""

_NUMBER_STARTS = re.compile(r"[0-9(+](?:(?<=[0-9])[0-9]*|)")
_AT = re.compile(r"@[\w-]{1,63}(?:\.[\w-]{1,63}){1,5}")
_MAILBOX = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}\Z")


def search(text: str) -> list[Mark]:
    """Return where ``text`` may identify somebody, in order and without overlaps.

    Kinds: name, date, record_number, phone, email, address. A mark holds the thing itself, not
    the word that gave it away ("Dr.", "MRN"). Time is linear in the text's length.
    """
    found = [_mark(match) for match in _WORDS.finditer(text)]
    end = 0
    for start in _NUMBER_STARTS.finditer(text):
        match = _NUMBERS.match(text, start.start()) if start.start() >= end else None
        if match is not None:
            end = match.end()
            found.append(_mark(match))
    if "@" in text:
        found += _emails(text)
    return _apart(found) if len(found) > 1 else found


def _mark(match: re.Match[str]) -> Mark:
    group = str(match.lastgroup)
    return Mark(group.rsplit("_", 1)[0], *match.span(group))


def _emails(text: str) -> list[Mark]:
    marks = []
    for domain in _AT.finditer(text):
        first = max(0, domain.start() - 64)
        mailbox = _MAILBOX.search(text[first : domain.start()])
        if mailbox is not None:
            marks.append(Mark("email", first + mailbox.start(), domain.end()))
    return marks


def _apart(found: list[Mark]) -> list[Mark]:
    """Return the marks in order; of two that overlap, the one that begins first, or is longer."""
    kept: list[Mark] = []
    for mark in sorted(found, key=lambda mark: (mark.start, -mark.end)):
        if not kept or mark.start >= kept[-1].end:
            kept.append(mark)
    return kept
