"""Findings and impression of reports in other languages than English, however headers stand."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports_in_languages import SENTENCES

from lapvqa.text.languages import SHIPPED, fold, load_languages
from lapvqa.text.sections import Verdict, normalise, parse_plain, target_text

LANGUAGES = load_languages(SHIPPED.parents[1])

# Report -> its findings and impression; the language is detected.
REPORTS: dict[str, list[tuple[str, str, str]]] = {
    "de": [
        (
            "Röntgen-Thorax p.a. vom 01.01.\n\n"
            "Klinische Angaben und Fragestellung: Husten, Infiltrat?\n\n"
            "Befund:\n"
            "Herz normal groß. Kein Erguss.\n\n"
            "Beurteilung:\n"
            "Kein Anhalt für eine Pneumonie.\n",
            "Herz normal groß. Kein Erguss.",
            "Kein Anhalt für eine Pneumonie.",
        ),
        (
            "INDIKATION\n"
            "Dyspnoe.\n\n"
            "BEFUND\n"
            "Kein Pneumothorax.\n"
            "Thorax: knöchern intakt.\n\n"
            "ZUSAMMENFASSUNG\n"
            "Unauffällig.\n",
            "Kein Pneumothorax. Thorax: knöchern intakt.",
            "Unauffällig.",
        ),
        (
            "Voraufnahme: keine.\n"
            "2. Befund (Thorax liegend) : Herz groß.\n"
            "3) Beurteilung : Stauung.\n"
            "Empfehlung: Kontrolle.\n",
            "Herz groß.",
            "Stauung.",
        ),
    ],
    "es": [
        (
            "TECNICA: PA y lateral.\n"
            "HALLAZGOS: No se observa derrame pleural.\n"
            "IMPRESION DIAGNOSTICA: Sin hallazgos agudos.\n",
            "No se observa derrame pleural.",
            "Sin hallazgos agudos.",
        ),
        (
            "INFORME RADIOLÓGICO\n\n"
            "Motivo del estudio: tos.\n"
            "Hallazgos: Silueta cardíaca normal.\n\n"
            "Conclusión:\n"
            "Estudio normal.",
            "Silueta cardíaca normal.",
            "Estudio normal.",
        ),
    ],
    "fr": [
        (
            "Indication : toux et fièvre.\n"
            "Technique : face.\n"
            "Résultats :\n"
            "Pas d'épanchement pleural.\n\n"
            "Conclusion :\n"
            "Radiographie normale.\n",
            "Pas d'épanchement pleural.",
            "Radiographie normale.",
        ),
        (
            "Renseignements cliniques\n"
            "Dyspnée.\n\n"
            "COMPTE-RENDU\n"
            "Le cœur est de taille normale.\n\n"
            "AU TOTAL\n"
            "Pas de foyer.\n",
            "Le cœur est de taille normale.",
            "Pas de foyer.",
        ),
    ],
    "pt": [
        (
            "Indicação clínica: tosse.\n"
            "Achados:\n"
            "Área cardíaca normal.\n"
            "Seios costofrênicos livres.\n"
            "Impressão:\n"
            "Exame normal.\n",
            "Área cardíaca normal. Seios costofrênicos livres.",
            "Exame normal.",
        ),
        (
            "RADIOGRAFIA DE TÓRAX\n\nAnálise:\nPulmões livres.\n\nCONCLUSAO: sem alterações.\n",
            "Pulmões livres.",
            "sem alterações.",
        ),
    ],
    "it": [
        (
            "Quesito clinico: polmonite?\n"
            "Referto:\n"
            "Non versamento pleurico.\n\n"
            "Conclusioni: esame nella norma.\n",
            "Non versamento pleurico.",
            "esame nella norma.",
        ),
    ],
    "nl": [
        (
            "Klinische gegevens: hoesten.\n"
            "Verslag:\n"
            "Geen pleuravocht. Het hart is niet vergroot.\n\n"
            "Conclusie:\n"
            "Geen infiltraat.\n",
            "Geen pleuravocht. Het hart is niet vergroot.",
            "Geen infiltraat.",
        ),
    ],
    "zh": [
        (
            "检查部位：胸部正位\n影像所见：两肺纹理清晰，未见实变。\n诊断意见：两肺未见明显异常。",
            "两肺纹理清晰，未见实变。",
            "两肺未见明显异常。",
        ),
        (
            "【临床诊断】咳嗽\n【检查所见】心影大小正常。\n【印象】未见异常。\n【建议】复查",
            "心影大小正常。",
            "未见异常。",
        ),
        ("影像表现：右下肺见斑片影。诊断结论：右下肺炎。", "右下肺见斑片影。", "右下肺炎。"),
        ("一、检查所见：\n  双肺清晰。\n二、检查结论:\n  正常。", "双肺清晰。", "正常。"),
        ("檢查所見：雙側肺野清晰。\n診斷：未見異常。", "雙側肺野清晰。", "未見異常。"),
    ],
    "ja": [
        (
            "【依頼目的】咳嗽\n【所見】\n両側肺野に異常陰影を認めません。\n【診断】\n異常なし。",
            "両側肺野に異常陰影を認めません。",
            "異常なし。",
        ),
        ("■所見\n心拡大なし。\n■インプレッション\n著変なし。\n", "心拡大なし。", "著変なし。"),
        (
            "検査：胸部正面\n所見：右下肺野に浸潤影があります。\n印象：肺炎の疑い。",
            "右下肺野に浸潤影があります。",
            "肺炎の疑い。",
        ),
    ],
}
CASES = [(code, *case) for code, cases in REPORTS.items() for case in cases]


@pytest.mark.parametrize(("code", "report", "findings", "impression"), CASES)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_findings_and_impression(
    code: str, report: str, findings: str, impression: str, line_end: str
) -> None:
    report = report.replace("\n", line_end)
    language = LANGUAGES.detect(report)
    assert language is not None
    assert language.code == code
    target = target_text(report, "both", language)
    assert target.text == f"{findings} {impression}"
    assert target.verdict is Verdict.FINDINGS_AND_IMPRESSION
    assert target_text(report, "findings", language).text == findings
    assert target_text(report, "impression", language).text == impression


@pytest.mark.parametrize(("code", "report", "findings", "impression"), CASES)
def test_accents_as_characters_of_their_own(
    code: str, report: str, findings: str, impression: str
) -> None:
    target = target_text(unicodedata.normalize("NFD", report), "both", LANGUAGES.find(code))
    assert unicodedata.normalize("NFC", target.text) == unicodedata.normalize(
        "NFC", f"{findings} {impression}"
    )


@pytest.mark.parametrize(
    ("code", "word"),
    [
        (code, header)
        for code, language in LANGUAGES.by_code.items()
        if code != "en"
        for _, header in language.table.sections.pairs()
    ],
)
def test_every_header_of_a_table_is_found_however_it_is_set(code: str, word: str) -> None:
    language = LANGUAGES.find(code)
    section = language.sections[fold(word)]
    for form in (word, word.upper(), word.title()):
        for line in (
            f"{form}: x",
            f"{form} : x",
            f"  {form}：x",
            f"{form}\nx",
            f"【{form}】x",
            f"[{form}]: x",
        ):
            (_, found) = parse_plain(f"\n{line}", language)
            assert found.text(f"\n{line}").strip() == "x", line
            assert found.name == section


@pytest.mark.parametrize(
    ("code", "report"),
    [
        ("de", "Der Befund ist unverändert: kein Erguss."),
        ("de", "Lungen: frei. Herz: normal."),
        ("es", "Sin hallazgos de significado. Conclusión de la guardia previa."),
        ("fr", "La conclusion est normale: pas de foyer."),
        ("zh", "两肺所见未见异常。"),
        ("ja", "所見なし。"),
    ],
)
def test_a_word_within_a_sentence_is_no_header(code: str, report: str) -> None:
    target = target_text(report, "both", LANGUAGES.find(code))
    assert (target.text, target.verdict) == (report, Verdict.FULL_REPORT)


def test_english_headers_count_in_a_report_of_another_language() -> None:
    report = "FINDINGS: Kein Pleuraerguss, Herz normal groß.\nIMPRESSION: Unauffälliger Befund.\n"
    language = LANGUAGES.detect(report)
    assert language is LANGUAGES.find("de")
    assert target_text(report, "impression", language).text == "Unauffälliger Befund."


def test_an_addendum_below_replaces_nothing() -> None:
    report = "Befund: Lunge frei.\nBeurteilung: Normal.\nNachtrag: Anruf.\nBeurteilung: Rundherd.\n"
    assert target_text(report, "both", LANGUAGES.find("de")).text == "Lunge frei. Normal."


def test_words_added_to_the_english_table_are_headers_where_its_own_rules_find_none() -> None:
    report = "Clinical details: cough.\nObservations: Clear.\nOpinion: Normal.\n"
    target = target_text(report, "both", LANGUAGES.find("en"))
    assert (target.text, target.verdict) == ("Clear. Normal.", Verdict.FINDINGS_AND_IMPRESSION)
    mimic = "\n FINDINGS: Clear.\n Opinion: Normal.\n"
    assert target_text(mimic, "both", LANGUAGES.find("en")).text == "Clear. Opinion: Normal."


PIECES = st.sampled_from(
    [
        "\n", "\r\n", "Befund:", "BEURTEILUNG", "所见：", "【印象】", "。", " ", "Herz normal.",
        "___",
        "FINDINGS:", "(a)", "Conclusión", "1.", "**", "\n\n",
    ]
)  # fmt: skip


@given(st.lists(PIECES, max_size=14).map("".join), st.sampled_from(sorted(SENTENCES)))
def test_spans_lie_in_order_and_hold_the_target(report: str, code: str) -> None:
    language = LANGUAGES.find(code)
    sections = parse_plain(report, language)
    assert all(0 <= one.start <= one.end <= len(report) for one in sections)
    assert all(a.end <= b.start for a, b in zip(sections, sections[1:], strict=False))
    target = target_text(report, "both", language)
    assert target.text == " ".join(normalise(span.text(report)) for span in target.spans)
