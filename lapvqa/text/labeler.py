"""Findings named in a report, by rules: words of each finding, then negation and doubt around them.

Labels are CheXpert's names. A mention is positive unless a cue of negation or doubt reaches it
within its clause (NegEx, Chapman et al. 2001: cues before and after, ended by conjunctions; here a
finite verb between cue and mention ends the reach too). Over a report positive outweighs
uncertain, uncertain outweighs negative, as in CheXpert (Irvin et al. 2019, section 3).
"likely" and "consistent with" assert; "may", "possible", "probable", "borderline" doubt.

It is small and transparent, not CheXbert: numbers made with it compare with each other only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Lung Lesion",
    "Pleural Effusion",
    "Pneumothorax",
    "Support Devices",
)
"""The labels looked for; "No Finding" is derived from them."""

NO_FINDING = "No Finding"
_DEVICES = "Support Devices"


class Assertion(IntEnum):
    """How a report speaks of a finding; of several mentions the highest counts."""

    NEGATIVE = 0
    UNCERTAIN = 1
    POSITIVE = 2


@dataclass(frozen=True, order=True)
class Mention:
    """Words that name a finding: ``text[start:end]``, and how their clause speaks of it."""

    start: int
    end: int
    label: str
    assertion: Assertion


def _words(*alternatives: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(alternatives)})\b")


_HEART = r"(?:heart|cardiac (?:silhouette|contour|shadow)|cardiopericardial silhouette)"
_MENTIONS = {
    "Atelectasis": _words(
        r"(?:sub)?atelecta\w+",
        r"volume loss",
        r"(?:lobar|lobe|lung|segmental) collapse",
        r"collapsed? (?:of )?(?:the )?(?:(?:right|left|upper|middle|lower) )*(?:lung|lobe)",
    ),
    "Cardiomegaly": _words(
        r"cardiomegaly",
        r"cardiac enlargement",
        rf"(?:enlarge(?:d|ment of(?: the)?)|large) {_HEART}",
        rf"{_HEART}(?: size)?\b[^,]{{0,40}}?\b(?:enlarged|enlargement|large|increased in size)",
        r"cardiothoracic ratio (?:is|appears) (?:\w+ )?(?:increased|enlarged)",
    ),
    "Consolidation": _words(r"consolidat\w+"),
    "Edema": _words(
        r"(?<!tissue )(?<!subcutaneous )o?edema(?:tous)?",
        r"(?:pulmonary |vascular |venous )+congestion",
        r"(?:vascular|venous) engorgement",
        r"heart failure",
        r"chf",
        r"(?:fluid|volume) overload",
    ),
    "Lung Lesion": _words(
        r"(?:micro)?nodul(?:es?|arity)",
        r"nodular (?:\w+ )?(?:opacit\w+|densit\w+|lesions?|focus|foci)",
        r"mass(?:es)?(?! effect)",
        r"(?<!bony )(?<!osseous )(?<!bone )(?<!lytic )(?<!sclerotic )(?<!rib )lesions?",
        r"tumou?rs?",
        r"neoplas\w+",
        r"(?:lung|bronchogenic|pulmonary) (?:cancer|carcinoma)",
        r"metasta\w+",
    ),
    "Pleural Effusion": _words(
        r"(?<!pericardial )effusions?",
        r"pleural fluid",
        r"fluid in the (?:\w+ ){0,2}pleural space",
        r"(?:hydro|haemo|hemo)thorax",
        r"hydropneumothora\w+",
    ),
    "Pneumothorax": _words(r"(?:hydro)?pneumothora\w+"),
    "Support Devices": _words(
        r"(?:endotracheal|tracheal|et|ng|nasogastric|orogastric|enteric|feeding|chest|gastric"
        r"|thoracostomy|tracheostomy|dobbhoff|nasoenteric|pigtail) (?:\w+ )?tubes?",
        r"(?:lines|tubes) and (?:lines|tubes)",
        r"(?:central|venous|picc|jugular|subclavian|arterial|femoral) (?:venous )?lines?",
        r"tracheostomy", r"tubes?", r"dobbhoff", r"ett", r"picc",
        r"(?:chest |medi|infuse-?a-?|power)-?ports?", r"port-?a-?cath", r"catheters?",
        r"pacemakers?", r"pacers?", r"pacing (?:leads?|wires?|device)", r"a?icd",
        r"defibrillator", r"pigtail", r"stents?", r"drains?", r"swan[- ]ganz", r"leads",
        r"electrodes?", r"generator", r"(?:sternotomy|sternal|cerclage) wires", r"iabp",
        r"(?:prosthetic|mechanical|replaced|artificial) (?:\w+ )?valves?", r"valve replacement",
        r"balloon pump", r"(?:support|monitoring|implanted|cardiac) devices?",
        r"(?:spinal|surgical|orthopedic) hardware",
    ),
}  # fmt: skip

_SPACE = re.compile(r"\s+")
_SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)|\n\s*\n")
_CLAUSE_END = re.compile(
    r"[;:]|,? \b(?:but|however|although|though|except(?: for)?|aside from|apart from|other than"
    r"|with the exception of|whereas|while|yet)\b|,? (?:and )?there (?:is|are|remains?|has been)\b"
    r"|, with\b|,? and (?:a|an|the)\b"
)
# What looks like a negation and is none: taken out before cues are looked for.
_NO_NEGATION = re.compile(
    r"\b(?:no|not|without)(?: (?:a|any|significant|significantly|appreciable|appreciably|definite"
    r"|substantial|substantially|interval|relevant|major|much|markedly|overt))*"
    r" (?:chang\w+|increas\w+|decreas\w+|progress\w+|worsen\w+|improve\w*|differen\w+)"
    r"(?: in(?: the)?(?: size(?: of)?| extent(?: of)?| appearance(?: of)?)?| of| from)?"
    r"|\bnot only\b|\bnear(?:ly)?[- ](?:complete(?:ly)? )?(?:resol\w+)"
)
_NEGATION_BEFORE = _words(
    r"(?:do|does|did) not \w+", r"no", r"not", r"without", r"never", r"nor", r"neither", r"none",
    r"absent", r"absence of", r"negative for", r"free of", r"clear of", r"lack of", r"lacks?",
    r"resolution of", r"removal of", r"(?:resolved|removed)(?: \w+){0,2}(?= )", r"rather than",
    r"excludes?",
)  # fmt: skip
_SEEN = (
    r"(?:seen|identified|present|visuali[sz]ed|visible|evident|detected|demonstrated|appreciated"
    r"|noted|apparent|found|suspected|observed|in place)"
)
_NEGATION_AFTER = _words(
    rf"(?:(?:is|are|was|were) )?(?:not|no longer) (?:\w+ly )?{_SEEN}", r"no longer",
    r"(?:has|have|had)(?: \w+){0,3} (?:resolved|cleared|removed|disappeared|excluded)",
    r"(?:is|are|was|were)(?: now)? (?:absent|resolved|removed|excluded|unlikely|ruled out)",
    r"(?:is|are|appears?|remains?) (?:within (?:normal )?limits|normal|unremarkable)",
    r"(?:resolved|removed) (?:since|in the interval)", r"absent", r"unlikely",
)  # fmt: skip
_DOUBT_BEFORE = _words(
    r"may", r"might", r"could", r"would", r"possible", r"possibly", r"possibility of",
    r"potential(?:ly)?", r"probabl[ey]", r"presumabl[ey]", r"suspected", r"suspicious for",
    r"suspicion (?:of|for)", r"worrisome for", r"favou?r(?:ed|ing)?", r"concern(?:ing)? for",
    r"question(?:able)?(?: of)?", r"equivocal", r"borderline", r"versus", r"vs",
    r"differential(?: diagnosis)?(?: includ\w+| of)?",
    r"(?:cannot|can not|could not|difficult to|not) (?:entirely |completely )?"
    r"(?:exclude|rule out)",
    r"(?:evaluate|assess|assessment|evaluation|rule out|r/o)(?: for)?",
)  # fmt: skip
_DOUBT_AFTER = _words(
    r"(?:cannot|can not|could not)(?: \w+ly)? be (?:\w+ly )?(?:excluded|ruled out)",
    r"(?:(?:is|are) )?not (?:entirely |completely )?excluded",
    r"(?:(?:is|are|was|were) )?(?:also )?(?:possible|questioned|suspected|questionable)",
    r"(?:is|are) (?:difficult|hard) to (?:exclude|rule out)",
    r"(?:may|might|could) be (?:present|considered)",
    r"is (?:a|in the) (?:possibility|consideration|differential)", r"versus", r"vs",
)  # fmt: skip
_VERB = _words(
    r"is", r"are", r"was", r"were", r"has", r"have", r"had", r"remains?", r"persists?",
    r"appears?", r"shows?", r"demonstrates?", r"projects?", r"terminates?", r"ends?",
)  # fmt: skip


def find(text: str) -> frozenset[str]:
    """Return the labels that ``text`` asserts, "No Finding" among them if it asserts health.

    "No Finding": the text has words and leaves no finding but devices positive or uncertain.
    """
    assertions = assess(text)
    found = {label for label, value in assertions.items() if value is Assertion.POSITIVE}
    in_doubt = {label for label, value in assertions.items() if value > Assertion.NEGATIVE}
    if not in_doubt - {_DEVICES} and any(map(str.isalpha, text)):
        found.add(NO_FINDING)
    return frozenset(found)


def assess(text: str) -> dict[str, Assertion]:
    """Return how ``text`` speaks of each finding it mentions; labels without a word are absent."""
    return dict(_assess(text))


@lru_cache(maxsize=65536)
def _assess(text: str) -> tuple[tuple[str, Assertion], ...]:
    found: dict[str, Assertion] = {}
    for one in mentions(text):
        found[one.label] = max(found.get(one.label, one.assertion), one.assertion)
    return tuple(sorted(found.items()))


def mentions(text: str) -> list[Mention]:
    """Return every mention of a finding, by its place in ``text``; mentions may overlap."""
    return sorted(
        Mention(clause.places[one.start()], clause.places[one.end() - 1] + 1, label,
                _assertion(clause.text, one))
        for clause in _clauses(text)
        for label, pattern in _MENTIONS.items()
        for one in pattern.finditer(clause.text)
    )  # fmt: skip


@dataclass(frozen=True)
class _Clause:
    """Letters as they are matched, and the place of each in the text they come from."""

    text: str
    places: list[int]

    def __getitem__(self, part: slice) -> _Clause:
        return _Clause(self.text[part], self.places[part])

    def split(self, pattern: re.Pattern[str]) -> Iterator[_Clause]:
        start = 0
        for end in pattern.finditer(self.text):
            yield self[start : end.start()]
            start = end.end()
        yield self[start:]

    def replace(self, pattern: re.Pattern[str], sign: str) -> _Clause:
        """Put the one letter ``sign`` where ``pattern`` was."""
        places: list[int] = []
        start = 0
        for found in pattern.finditer(self.text):
            places += [*self.places[start : found.start()], self.places[found.start()]]
            start = found.end()
        return _Clause(pattern.sub(sign, self.text), places + self.places[start:])

    def strip(self) -> _Clause:
        bare = len(self.text) - len(self.text.lstrip())
        return self[bare : max(len(self.text.rstrip()), bare)]


def _clauses(text: str) -> Iterator[_Clause]:
    letters = [(small, place) for place, one in enumerate(text) for small in one.lower()]
    whole = _Clause("".join(one for one, _ in letters), [place for _, place in letters])
    for sentence in whole.split(_SENTENCE_END):
        plain = sentence.strip().replace(_SPACE, " ").replace(_NO_NEGATION, "~")
        yield from plain.split(_CLAUSE_END)


def _assertion(clause: str, mention: re.Match[str]) -> Assertion:
    # Up to the mention's end: "the heart is not enlarged" has its cue inside.
    before, after = clause[: mention.end()], clause[mention.end() :]
    if _reached_by(_NEGATION_AFTER, after):
        return Assertion.NEGATIVE
    negated, doubted = _last_end(_NEGATION_BEFORE, before), _last_end(_DOUBT_BEFORE, before)
    if max(negated, doubted) >= 0:  # the nearer cue decides
        return Assertion.NEGATIVE if negated > doubted else Assertion.UNCERTAIN
    return Assertion.UNCERTAIN if _reached_by(_DOUBT_AFTER, after) else Assertion.POSITIVE


def _last_end(cue: re.Pattern[str], before: str) -> int:
    """Return where the last cue in ``before`` ends; -1 if none or a finite verb follows it."""
    last = max((found.end() for found in cue.finditer(before)), default=-1)
    return -1 if last >= 0 and _VERB.search(before, last) else last


def _reached_by(cue: re.Pattern[str], after: str) -> bool:
    """Does a cue follow with no finite verb before it?"""
    found = cue.search(after)
    return found is not None and not _VERB.search(after, 0, found.start())
