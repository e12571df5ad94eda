"""Texts that name a side are found, by word, abbreviation and place; others are left alone."""

from __future__ import annotations

import tarfile
import unicodedata
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports_in_languages import SENTENCES

from lapvqa.text.languages import SHIPPED, is_unspaced, load_languages
from lapvqa.text.laterality import names_side

LANGUAGES = load_languages(SHIPPED.parents[1])
ENGLISH = LANGUAGES.find("en")
# How a side word may stand in a text: neighbours are spaces, punctuation, signs, never letters.
BEFORE = ["", " ", "(", "«", "/", "-", "___", "„", "¿", ": ", "\n", "。", "’ "]
AFTER = ["", " ", ".", ",", ")", "»", "/", "-", "___", "“", ";", "\n", "。", "!"]
LETTERS = ["ä", "Ö", "ß", "é", "ñ", "ç", "ł", "k", "7", "я", "ø"]


@pytest.mark.parametrize(
    "text",
    [
        "Left pleural effusion.", "RIGHT lung clear", "the right-sided port", "leftward shift",
        "midright lung", "Rightmost lead", "a left-to-right shunt", "___right apex", "left.",
        "Lt base", "RT hilum", "R>L opacity", "the L lung", "(L) effusion", "R IJ line", "RIJ line",
        "RUL nodule", "LLL collapse", "RML/RLL", "pain in the RUQ", "LV enlarged", "dextrocardia",
        "dextro curvature", "Levoscoliosis", "dextro-convex", "situs inversus", "lingular opacity",
        "the middle lobe", "minor fissure", "azygos fissure", "left\nlung", "Lungs:left clear",
    ],
)  # fmt: skip
def test_a_side_is_named(text: str) -> None:
    assert names_side(text, ENGLISH)


@pytest.mark.parametrize(
    "text",
    [
        "", "No acute process.", "Bilateral effusions.", "Both lungs are clear.", "Unilateral.",
        "Upright chest.", "Brighter", "The L1 and L2 vertebrae, L5/S1.", "L-spine", "R/O pneumonia",
        "Large heart, low volumes, lower lobe.", "PA and lateral", "Lleft", "copyright",
        "major fissure", "the middle of the lobe", "Leftover", "AR, LR5", "level", "Dr. Wright",
    ],
)  # fmt: skip
def test_no_side_is_named(text: str) -> None:
    assert not names_side(text, ENGLISH)


WORDS = [
    (code, word)
    for code, language in LANGUAGES.by_code.items()
    for word in language.table.sides.words
]
ABBREVIATIONS = [
    (code, word)
    for code, language in LANGUAGES.by_code.items()
    for word in language.table.sides.abbreviations
]


def _without_a_side(code: str) -> str:
    """Sentences of a language that name no side."""
    return " ".join(
        sentence for sentence in SENTENCES[code] if not names_side(sentence, LANGUAGES.find(code))
    )


@pytest.mark.parametrize(("code", "word"), WORDS)
def test_each_word_is_a_side_in_any_case_and_between_any_signs(code: str, word: str) -> None:
    language, stem = LANGUAGES.find(code), word.removesuffix("*")
    for form in {stem, stem.upper(), stem.title(), unicodedata.normalize("NFD", stem)}:
        for before in BEFORE:
            for after in AFTER:
                assert names_side(f"{before}{form}{after}", language)
    if word.endswith("*"):
        assert names_side(f"{stem}seitig", language)


@pytest.mark.parametrize(("code", "word"), WORDS + ABBREVIATIONS)
def test_a_letter_beside_it_makes_another_word(code: str, word: str) -> None:
    if is_unspaced(word):
        return  # nothing separates words there: it is a side wherever it stands
    language, stem = LANGUAGES.find(code), word.removesuffix("*")
    for letter in LETTERS:
        assert not names_side(f"{letter}{stem}{letter}", language)
        assert word.endswith("*") or not names_side(f"{stem}{letter}", language)
        assert not names_side(f"{letter}{stem}", language)
        assert not names_side(unicodedata.normalize("NFD", f"{letter}{stem}"), language)
        assert not names_side(unicodedata.normalize("NFD", f"{letter}{stem}{letter}"), language)


@given(st.sampled_from(WORDS + ABBREVIATIONS), st.integers(0, 10))
def test_a_side_within_a_report_is_found_whatever_language_is_detected(
    pair: tuple[str, str], place: int
) -> None:
    code, word = pair
    sentences = _without_a_side(code).split(" ")
    sentences.insert(place, f" {word.removesuffix('*')} ")
    report = " ".join(sentences)
    assert names_side(report, LANGUAGES.detect(report))


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("de", "Pleuraerguss rechts."),
        ("de", "linksseitig"),
        ("de", "LINKEN UNTERFELD"),
        ("de", "im re. UF"),
        ("de", "Li basal"),
        ("de", "Mittellappenpneumonie"),
        ("de", "Erguß (rechts>links)"),
        ("de", "rechte Lunge"),
        ("es", "lóbulo superior derecho"),
        ("es", "BASE IZQUIERDA"),
        ("es", "HTD"),
        ("es", "Língula"),
        ("es", "lobulo medio"),
        ("fr", "à droite"),
        ("fr", "Gauche:"),
        ("fr", "de l'hémichamp droit"),
        ("fr", "lobe\nmoyen"),
        ("fr", "LSD"),
        ("pt", "pulmão direito"),
        ("pt", "à ESQUERDA"),
        ("pt", "LIE"),
        ("pt", "língula"),
        ("pt", "lobo médio"),
        ("it", "polmone destro"),
        ("it", "a sinistra"),
        ("it", "base dx"),
        ("it", "in sede sn."),
        ("it", "all'apice sinistro"),
        ("nl", "linkerbovenkwab"),
        ("nl", "rechts"),
        ("nl", "RBK"),
        ("nl", "Middenkwab"),
        ("zh", "右下肺见斑片影"),
        ("zh", "左侧"),
        ("zh", "於右肺"),
        ("zh", "示RUL结节"),
        ("ja", "右下肺野"),
        ("ja", "左"),
        ("ja", "Ｒｔ"),
        ("ja", "Ｌ＞Ｒ"),
    ],
)
def test_a_side_is_named_in_other_languages(code: str, text: str) -> None:
    assert names_side(text, LANGUAGES.find(code))


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("de", "Röntgen Thorax"),
        ("de", "Rö-Thorax beidseits"),
        ("de", "Recht gute Belüftung"),
        ("de", "Rechtfertigende Indikation"),
        ("de", "aufrecht, senkrecht"),
        ("de", "Ro\u0308ntgen"),
        ("de", "Lungen frei"),
        ("de", "bilateral, beide Lungen"),
        ("de", "gelenkig"),
        ("es", "Ambos pulmones"),
        ("es", "derechohabiente"),
        ("es", "Leve"),
        ("fr", "L'index cardiothoracique"),
        ("fr", "D’autre part"),
        ("fr", "adroit"),
        ("fr", "Les deux poumons"),
        ("fr", "maladroite"),
        ("pt", "diretório, esquerdista"),
        ("pt", "bilaterais"),
        ("it", "L'ombra cardiaca"),
        ("it", "Entrambi i polmoni"),
        ("it", "minestra"),
        ("nl", "recht"),
        ("nl", "beiderzijds"),
        ("zh", "双肺未见异常"),
        ("zh", "兩側肋膈角"),
        ("ja", "両側肺野に異常なし"),
    ],
)
def test_no_side_is_named_in_other_languages(code: str, text: str) -> None:
    assert not names_side(text, LANGUAGES.find(code))


def test_in_an_unknown_language_there_may_be_a_side() -> None:
    assert names_side("Prawe płuco.", None)
    assert names_side("", None)


@pytest.mark.corpus
def test_sides_that_indexers_found_in_openi(corpus: Path) -> None:
    """Of the reports that a human indexer gave a left or right, all but one name it themselves."""
    sided, missed = 0, []
    with tarfile.open(corpus / "openi" / "NLMCXR_reports.tgz") as archive:
        for member in archive:
            handle = archive.extractfile(member)
            if handle is None or not member.name.endswith(".xml"):
                continue
            root = ElementTree.parse(handle).getroot()
            terms = {part for term in root.iter("major") for part in (term.text or "").split("/")}
            text = " ".join(
                part.text or ""
                for part in root.iter("AbstractText")
                if part.attrib["Label"] in ("FINDINGS", "IMPRESSION")
            )
            if {"left", "right"} & terms and text.strip():
                sided += 1
                if not names_side(text, ENGLISH):
                    missed.append(Path(member.name).stem)
    assert sided > 1000
    assert len(missed) == 1, missed  # its text names no side anywhere
