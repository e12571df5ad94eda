"""Reports in MIMIC-CXR's format, from a grammar with variation and negation.

A report names exactly the findings of its study, each by the same noun as in ``findings`` (so a
plain word search finds it), with side, zone and severity as drawn; then one or two denials of
what is absent.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lapvqa.synth.findings import (
    ATELECTASIS,
    CARDIOMEGALY,
    CONSOLIDATION,
    DEVICE,
    EDEMA,
    EFFUSION,
    NODULE,
    PNEUMOTHORAX,
    Finding,
)
from lapvqa.synth.patient_history import Findings

_INDICATIONS = (
    "___ year old {who} with shortness of breath.",
    "___ year old {who} with cough and fever.",
    "___ year old {who} with chest pain.",
    "___F with dyspnea, evaluate for pneumonia.",
    "___M with hypoxia.",
    "History: ___ with weakness.",
    "Preoperative evaluation.",
    "Status post procedure, interval change.",
)
_ORDER = (EFFUSION, CARDIOMEGALY, EDEMA, CONSOLIDATION, ATELECTASIS, PNEUMOTHORAX, NODULE, DEVICE)
_DENIABLE = (PNEUMOTHORAX, EFFUSION, CONSOLIDATION, EDEMA, CARDIOMEGALY)
_WIDTH = 79


@dataclass(frozen=True)
class Report:
    """A report and what it says: the text, each finding's phrase, the kinds ruled out."""

    text: str
    phrases: tuple[str, ...]
    """One per finding of the study, in the study's order."""
    negated: tuple[str, ...]


def _article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def name_of(finding: Finding) -> str:
    """Return the finding in few words, side, zone and severity included."""
    kind, side, severity = finding.kind, finding.side, finding.severity
    return {
        EFFUSION: f"{severity} {side} pleural effusion",
        PNEUMOTHORAX: f"{severity} {side} pneumothorax",
        CARDIOMEGALY: f"{severity} cardiomegaly",
        EDEMA: f"{severity} pulmonary edema",
        CONSOLIDATION: f"{side} {finding.zone} lung consolidation",
        NODULE: f"{finding.millimetres} mm {side} {finding.zone} lung nodule",
        ATELECTASIS: f"{side} basilar atelectasis",
        DEVICE: finding.device,
    }[kind]


def _sentence(rng: np.random.Generator, finding: Finding) -> str:
    """Return a sentence that states one finding."""
    name = name_of(finding)
    if finding.uncertain:
        return f"Possible {name}."
    if finding.kind == DEVICE:
        return str(rng.choice([f"{name} in place.", f"{_article(name)} is present."])).capitalize()
    countable = finding.kind in (EFFUSION, PNEUMOTHORAX, NODULE)
    there = f"There is {_article(name) if countable else name}."
    forms = [f"{name}.", there]
    if finding.kind == CONSOLIDATION:
        forms.append(f"consolidation in the {finding.side} {finding.zone} lung.")
    if finding.kind == ATELECTASIS:
        forms.append(f"atelectasis at the {finding.side} base.")
    chosen = str(rng.choice(forms))
    return chosen[0].upper() + chosen[1:]


def _positive(rng: np.random.Generator, findings: Findings) -> dict[Finding, str]:
    """Return a sentence per finding; two effusions of a kind may share one."""
    ordered = sorted(findings, key=lambda finding: _ORDER.index(finding.kind))
    sentences = {finding: _sentence(rng, finding) for finding in ordered}
    pair = [f for f in ordered if f.kind == EFFUSION and not f.uncertain]
    if len(pair) == 2:
        first, second = pair
        shared = (
            f"{first.severity} bilateral pleural effusions."
            if first.severity == second.severity
            else f"{first.severity} {first.side} and {second.severity} {second.side} "
            "pleural effusions."
        )
        sentences[first] = sentences[second] = shared.capitalize()
    return sentences


def _negative(rng: np.random.Generator, findings: Findings) -> tuple[list[str], tuple[str, ...]]:
    """Return one or two denials and the kinds they rule out."""
    present = {finding.kind for finding in findings}
    absent = [kind for kind in _DENIABLE if kind not in present]
    count = 1 if len(findings) > 3 else 2
    picked = [absent[i] for i in sorted(rng.permutation(len(absent))[:count])]
    plain = [kind for kind in picked if kind != CARDIOMEGALY]
    sentences = [f"No {' or '.join(plain)}."] if plain else []
    if CARDIOMEGALY in picked:
        sentences.append(str(rng.choice(["Heart size is normal.", "No cardiomegaly."])))
    return sentences, tuple(picked)


def _impression(rng: np.random.Generator, findings: Findings) -> str:
    """Return the summary: names only, devices left out unless nothing else is there."""
    ill = sorted(
        (finding for finding in findings if finding.kind != DEVICE),
        key=lambda finding: _ORDER.index(finding.kind),
    )
    if not ill:
        return str(
            rng.choice(["No acute cardiopulmonary process.", "Normal chest.", "No acute findings."])
        )
    names: list[str] = []
    for finding in ill:
        short = finding.kind if finding.kind != NODULE else "lung nodule"
        name = f"possible {short}" if finding.uncertain else short
        if name not in names:
            names.append(name)
    listed = join(names)
    return f"{listed[0].upper()}{listed[1:]}."


def _section(name: str, text: str) -> list[str]:
    return [f"{name}: ", "", *textwrap.wrap(text, _WIDTH - 1), ""]


def write_report(
    rng: np.random.Generator, findings: Findings, *, examination: str, first: bool, female: bool
) -> Report:
    """Return the report of one study: every body line begins with one space, as in MIMIC-CXR."""
    said = _positive(rng, findings)
    denials, negated = _negative(rng, findings)
    lead = ["The lungs are clear."] if not said and rng.random() < 0.5 else []
    body = " ".join([*dict.fromkeys(said.values()), *lead, *denials])
    indication = str(rng.choice(_INDICATIONS)).format(who="woman" if female else "man")
    lines = [f"EXAMINATION:  {examination}", "", f"INDICATION:  {indication}", ""]
    comparison = str(rng.choice(["None.", "None available."])) if first else "Radiograph of ___."
    lines += [f"COMPARISON:  {comparison}", ""]
    if rng.random() < 0.06:  # some radiologists dictate everything as impression
        lines += _section("IMPRESSION", body)
    else:
        lines += _section("FINDINGS", body) + _section("IMPRESSION", _impression(rng, findings))
    text = "\n".join([f"{'FINAL REPORT':>45}", *(f" {line}" for line in lines)])
    phrases = tuple(said[finding].rstrip(".") for finding in findings)
    return Report(f"{text}\n", phrases, negated)


def join(sentences: Sequence[str]) -> str:
    """Return a list in words: a, b, and c."""
    if len(sentences) < 3:
        return " and ".join(sentences)
    return f"{', '.join(sentences[:-1])}, and {sentences[-1]}"
