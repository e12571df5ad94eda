"""Which language a report is in, and what a table of words must be."""

from __future__ import annotations

import shutil
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports_in_languages import SENTENCES, UNKNOWN

from lapvqa.errors import ConfigError
from lapvqa.text.languages import SHIPPED, Languages, fold, load_languages

LANGUAGES = load_languages(SHIPPED.parents[1])


def detected(report: str) -> str | None:
    language = LANGUAGES.detect(report)
    return language.code if language else None


def test_every_table_has_sentences() -> None:
    assert set(SENTENCES) == set(LANGUAGES.by_code)
    assert all(len(sentences) > 20 for sentences in SENTENCES.values())


@pytest.mark.parametrize("code", SENTENCES)
def test_reports_of_three_sentences_are_recognised(code: str) -> None:
    sentences = SENTENCES[code]
    for start in range(len(sentences) - 2):
        report = " ".join(sentences[start : start + 3])
        assert detected(report) == code, report


def test_single_sentences_are_recognised_or_unknown() -> None:
    """Of 198 sentences one is taken for another language: four words that Italian shares."""
    found = Counter(
        "right" if detected(sentence) == code else f"{detected(sentence)} for {code}"
        for code, sentences in SENTENCES.items()
        for sentence in sentences
    )
    assert found == {
        "right": 191, "None for es": 3, "None for pt": 1, "None for it": 1, "None for nl": 1,
        "it for pt": 1,
    }  # fmt: skip


@pytest.mark.parametrize("code", UNKNOWN)
def test_a_language_without_a_table_is_unknown(code: str) -> None:
    assert detected(" ".join(UNKNOWN[code])) is None


@pytest.mark.parametrize("report", ["", "12/3 ___ 4.", "...", "xyzzy plugh", "Cardiomegalia."])
def test_nothing_to_go_by_is_unknown(report: str) -> None:
    assert detected(report) is None


def test_where_languages_are_equally_near_it_is_english() -> None:
    assert detected("Normal.") == "en"
    assert detected("Pneumothorax.") == "en"
    assert detected("Pneumothorax rechts.") is None  # German or Dutch, and no English


@pytest.mark.corpus
def test_all_reports_at_hand_are_english(corpus: Path, openi: dict[str, str]) -> None:
    files = sorted((corpus / "mimic-cxr" / "files").rglob("*.txt"))
    texts = [file.read_bytes().decode() for file in files] + list(openi.values())
    assert Counter(map(detected, texts)) == {"en": 181 + 3955}


@given(st.sampled_from(sorted(SENTENCES)), st.randoms(use_true_random=False))
def test_case_accents_and_order_decide_nothing(code: str, random: object) -> None:
    sentences = list(SENTENCES[code])
    random.shuffle(sentences)  # type: ignore[attr-defined]
    report = " ".join(sentences[:6])
    bare = "".join(c for c in unicodedata.normalize("NFD", report) if not unicodedata.combining(c))
    forms = [report, report.upper(), report.title(), unicodedata.normalize("NFD", report)]
    if code != "ja":  # kana lose their voice with their marks
        forms.append(bare)
    assert {detected(form) for form in forms} == {code}


@given(st.text(max_size=60))
def test_any_text_is_in_one_language_or_unknown(text: str) -> None:
    assert detected(text) in {None, *LANGUAGES.by_code}
    assert fold(fold(text)) == fold(text)


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """The tables in a project of their own, to be edited."""
    shutil.copytree(SHIPPED, tmp_path / "params" / "reports")
    return tmp_path / "params" / "reports"


def test_a_language_is_added_by_a_file(tables: Path) -> None:
    root = tables.parents[1]
    report = " ".join(UNKNOWN["sv"])
    assert load_languages(root).detect(report) is None
    (tables / "sv.yaml").write_text(
        "language: Swedish\n"
        "sections: {findings: [Fynd], impression: [Utlåtande]}\n"
        "sides: {words: [höger*, vänster*], abbreviations: [hö, vä]}\n"
        "negations: [ingen, inga, inte]\n"
        "words: [och, är, i, av, med, sedan, hjärtat, lungorna, lunga, pleuravätska, föregående]\n"
    )
    language = load_languages(root).detect(report)
    assert language is not None
    assert language.code == "sv"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("sections:\n", "section:\n", "section is not a known parameter; nearest: sections"),
        ("  impression: [", "  impresion: [", "sections.impresion is not a known parameter; near"),
        ("language: German\n", "", "de.yaml: language is missing"),
        ("negations: [kein,", "negations: [7,", "negations.0 is 7; input should be a valid string"),
        ("negations: [kein,", "negations: ['...',", "negations.0 is '...'; write letters"),
        ("    rechts*,", "    re*hts,", "sides.words.0 is 're*hts'; write * at the end or not"),
        ("  history: [", "  history: [Befund, ", "'Befund' stands under findings and history"),
        ("language: German", "language: [German", "de.yaml is not valid YAML"),
    ],
)  # fmt: skip
def test_a_fault_is_named_by_file_and_key(tables: Path, old: str, new: str, said: str) -> None:
    path = tables / "de.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError) as raised:
        load_languages(tables.parents[1])
    assert said in str(raised.value)
    assert "de.yaml" in str(raised.value)


def test_a_language_without_side_words_is_refused(tables: Path) -> None:
    """Its reports would never be sided, and all of its images mirrored."""
    (tables / "xx.yaml").write_text(
        "language: X\nsections: {}\nsides: {words: []}\nnegations: []\nwords: [x]\n"
    )
    with pytest.raises(ConfigError, match=r"xx\.yaml: sides\.words"):
        load_languages(tables.parents[1])


def test_names_of_files_are_codes_and_english_is_there(tables: Path) -> None:
    (tables / "de.yaml").rename(tables / "German.yaml")
    with pytest.raises(ConfigError, match="expected a language code"):
        load_languages(tables.parents[1])
    (tables / "German.yaml").unlink()
    (tables / "en.yaml").unlink()
    with pytest.raises(ConfigError, match=r"expected params/reports/en\.yaml"):
        load_languages(tables.parents[1])


def test_an_unknown_choice_is_told_what_there_is() -> None:
    with pytest.raises(
        ConfigError, match=r"tokens\.language is 'sv'; expected auto or one of de, en"
    ):
        LANGUAGES.find("sv")


def test_a_comment_changes_no_digest_a_word_does(tables: Path) -> None:
    root = tables.parents[1]

    def rules() -> dict[str, str]:
        languages: Languages = load_languages(root)
        return {code: languages.rules(code) for code in languages.by_code}

    before, path = rules(), tables / "de.yaml"
    path.write_text(f"# Ein Kommentar.\n{path.read_text()}")
    assert rules() == before
    path.write_text(path.read_text().replace("negations: [kein,", "negations: [kein, nie,", 1))
    assert {code for code, one in rules().items() if one != before[code]} == {"de"}
