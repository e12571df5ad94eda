"""Reports as hospitals write them, in the encodings of their languages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapvqa.errors import DicomError
from lapvqa.ingest.archives.encodings import decode

TEXTS = {
    "de": "Befund: Herz nicht vergrößert. Kein Pleuraerguss. Unauffälliger Thoraxbefund.",
    "fr": "Pas d'épanchement pleural. Opacité basale droite évoquant une pneumopathie.",
    "es": "Silueta cardíaca de tamaño normal. Impresión: sin hallazgos. ¿Neumonía?",
    "pt": "Área cardíaca normal. Não há derrame pleural. Impressão: pulmões sem alterações.",
    "en": "No acute process – heart size is normal. Patient’s tube is at 3 cm, ±5 mm.",
    "pl": "Pola płucne bez zmian ogniskowych. Przepona gładka, kąty wolne, wnęka poszerzona.",
    "cs": "Plíce bez ložiskových změn, srdeční stín nerozšířen, bránice hladká.",
    "tr": "Kalp boyutları normaldir. Sağ akciğer alt lobda infiltrasyon izlenmiştir.",
    "ru": "Очаговых и инфильтративных изменений не выявлено. Корни структурны.",
    "el": "Δεν παρατηρούνται διηθήσεις. Καρδιά φυσιολογικού μεγέθους.",
    "zh": "所见：双肺纹理清晰，未见明显实变影。心影大小形态正常。印象：右下肺炎症，建议复查。",
    "zh and en": "FINDINGS: 双肺纹理增粗, 心影增大, CTR 0.56. IMPRESSION: 慢性支气管炎改变.",
    "zh-TW": "所見：雙側肺野清晰，無明顯浸潤。心臟大小正常。印象：右下肺炎，建議追蹤。",
    "ja": "所見：両肺野に明らかな浸潤影は認めません。心拡大なし。胸水貯留なし。",
    "ko": "양측 폐야에 활동성 병변은 없습니다. 심장 크기는 정상입니다. 결론: 정상 소견.",
}
ENCODINGS = {
    "de": ["cp1252", "cp850"], "fr": ["cp1252", "cp850"], "es": ["cp1252"], "pt": ["cp1252"],
    "en": ["cp1252"], "pl": ["cp1250"], "cs": ["cp1250"], "tr": ["cp1254"],
    "ru": ["cp1251", "koi8_r", "cp866"], "el": ["cp1253"], "zh": ["gb18030"],
    "zh and en": ["gb18030"], "zh-TW": ["big5"], "ja": ["shift_jis", "euc_jp", "iso2022_jp"],
    "ko": ["euc_kr"],
}  # fmt: skip
UNIVERSAL = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "gb18030"]


@pytest.mark.parametrize(
    ("language", "encoding"), [(name, e) for name, own in ENCODINGS.items() for e in own]
)
def test_a_report_in_its_language_s_encoding(language: str, encoding: str) -> None:
    text = TEXTS[language]
    decoded = decode(text.encode(encoding))
    assert decoded.text == text
    assert "ascii".encode(decoded.encoding)  # a name that Python knows


@pytest.mark.parametrize("encoding", UNIVERSAL[:6])
@pytest.mark.parametrize("language", TEXTS)
def test_a_report_in_unicode(language: str, encoding: str) -> None:
    text = f"FINDINGS\r\n{TEXTS[language]} 1 2 3\n"
    assert decode(text.encode(encoding)).text == text


@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\x1b\ufeff")))
def test_whatever_is_in_utf8_stays_as_it_is(text: str) -> None:
    for encoding in ("utf-8", "utf-8-sig"):
        assert decode(text.encode(encoding)).text == text


@pytest.mark.parametrize("cut", [1, 7, 40])
@pytest.mark.parametrize("language", ["de", "fr", "es", "pt", "en"])
def test_a_part_of_a_western_text_is_read_as_the_whole(language: str, cut: int) -> None:
    part = TEXTS[language][cut:]
    assert decode(part.encode("cp1252")).text == part


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x81\xff", "report_encoding"),
        (bytes(range(128, 256)) * 4, "report_encoding"),
        ("Größe".encode("cp037"), "report_encoding"),  # of a mainframe
        (b"II*\0\x08\0\0\0", "bad_report"),
        (b"\0" * 40, "bad_report"),
        (b"text\0text", "bad_report"),
    ],
)
def test_what_no_encoding_explains_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(DicomError) as caught:
        decode(data)
    assert caught.value.reason == reason


def test_a_stated_encoding_is_the_only_one_tried() -> None:
    assert decode("Größe".encode("mac_roman"), stated="mac_roman").text == "Größe"
    with pytest.raises(DicomError, match="expected a text in ascii") as caught:
        decode("Größe".encode(), stated="ascii")
    assert caught.value.reason == "report_encoding"
