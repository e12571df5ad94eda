"""What a hospital calls a section (a column, a coded heading) to the heading that it gets here.

Sources that keep sections apart (tables, HL7, FHIR, DICOM SR) are written as MIMIC-CXR writes, in
lines `` FINDINGS: ...``, so that ``lapvqa.text.sections`` finds them, whatever their language.

The tables of params/reports hold headers within a text; these are the few that name a column or a
coded heading, and nothing else there. A test holds both to the same sections (decision 0026).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_WORDS = {
    "FINDINGS": (
        "findings", "finding", "befund", "befunde", "befundtext", "hallazgos", "descripcion",
        "resultats", "resultat", "constatations", "achados", "reperti", "bevindingen",
        "所见", "所見", "影像所见", "影像所見", "检查所见", "檢查所見", "影像表现",
        "影像学表现", "放射学所见", "소견", "описание",
    ),
    "IMPRESSION": (
        "impression", "impressions", "conclusion", "conclusions", "beurteilung",
        "zusammenfassung", "impresion", "conclusiones", "impressao", "conclusao", "conclusioni",
        "conclusie", "opinion", "诊断", "診斷", "診断", "印象", "结论", "結論", "影像诊断",
        "影像診斷", "诊断意见", "诊断结论", "印象診断", "결론", "판독결론", "заключение",
        # Both in one, which the tables of params/reports count as this too.
        "findingsandimpression", "befundundbeurteilung", "befundbeurteilung",
    ),
    "INDICATION": (
        "indication", "indications", "reasonforexam", "reasonforexamination", "reasonforstudy",
        "clinicalindication", "fragestellung", "indikation", "indicacion", "indicacao", "motif",
        "request", "检查目的", "検査目的", "klinischeangaben", "临床资料", "臨床情報",
    ),
    "HISTORY": (
        "history", "clinicalhistory", "clinicalinformation", "anamnese", "antecedentes",
        "antecedents", "病史",
    ),
    "COMPARISON": (
        "comparison", "comparisons", "vergleich", "comparacion", "comparaison", "comparacao",
        "对比", "比較",
    ),
    "TECHNIQUE": (
        "technique", "technik", "tecnica", "currentproceduredescriptions", "检查方法",
        "撮影条件",
    ),
    "RECOMMENDATION": (
        "recommendation", "recommendations", "empfehlung", "recomendacion", "recomendacao",
        "recommandation", "建议",
    ),
    "ADDENDUM": ("addendum", "nachtrag", "adenda", "addenda", "补充"),
}  # fmt: skip
_CODES = {
    # PS3.16 CID 7001 and 7002 (scheme DCM), and the LOINC codes that replace them.
    "121070": "FINDINGS", "121071": "FINDINGS", "59776-5": "FINDINGS", "18782-3": "FINDINGS",
    "121072": "IMPRESSION", "121073": "IMPRESSION", "121076": "IMPRESSION", "121077": "IMPRESSION",
    "19005-8": "IMPRESSION", "121109": "INDICATION", "121110": "INDICATION", "121062": "INDICATION",
    "18785-6": "INDICATION", "55115-0": "INDICATION", "121060": "HISTORY", "11329-0": "HISTORY",
    "121068": "COMPARISON", "121069": "COMPARISON", "121066": "COMPARISON", "18834-2": "COMPARISON",
    "55114-3": "COMPARISON", "121064": "TECHNIQUE", "55111-9": "TECHNIQUE",
    "121074": "RECOMMENDATION", "121075": "RECOMMENDATION", "18783-0": "RECOMMENDATION",
    "121078": "ADDENDUM", "55107-7": "ADDENDUM",
    # Suffixes of HL7 v2 observation identifiers (7.1.4): given diagnosis, impression...
    "GDT": "FINDINGS", "IMP": "IMPRESSION", "REC": "RECOMMENDATION", "ADT": "ADDENDUM",
}  # fmt: skip
_OWN_HEADING = re.compile(
    r"^[ \t]*(?:findings?|impressions?|conclusions?|befund|beurteilung|hallazgos|impresi[oó]n"
    r"|conclusi[oó]n|r[ée]sultats?|achados|impress[aã]o|conclus[aã]o|所见|所見|印象|诊断|診断|소견|결론)"
    r"[ \t]*[:：]",
    re.IGNORECASE | re.MULTILINE,
)

Part = tuple[str, str]
"""Heading (empty: none) and text of a stretch of a report."""


def squeeze(name: str) -> str:
    """Return a name in small letters without accents, spaces and signs, to be looked up."""
    decomposed = unicodedata.normalize("NFKD", name.casefold())
    return unicodedata.normalize("NFC", "".join(char for char in decomposed if char.isalnum()))


_HEADING_OF = {squeeze(word): heading for heading, words in _WORDS.items() for word in words}


def heading_of(name: str, *codes: str) -> str:
    """Return the heading for a section's codes or, if none is known, its name; else nothing."""
    known = (_CODES[code] for code in codes if code in _CODES)
    return next(known, _HEADING_OF.get(squeeze(name), ""))


def compose(parts: Sequence[Part]) -> str:
    """Write stretches of a report one after the other, those of one heading in a row together.

    White space under a heading is collapsed, so that no line of it can look like another one. If
    a text brings headings of its own, all stand as plain lines ``FINDINGS: ...``.
    """
    grouped: list[tuple[str, list[str]]] = []
    for heading, text in parts:
        if not text.strip():
            continue
        if not grouped or grouped[-1][0] != heading:
            grouped.append((heading, []))
        grouped[-1][1].append(text.strip("\r\n"))
    if not any(heading for heading, _ in grouped):
        return "\n".join("\n".join(texts) for _, texts in grouped)
    joined = [(heading, "\n".join(texts)) for heading, texts in grouped]
    if any(_OWN_HEADING.search(text) for _, text in joined):
        return "\n".join(
            f"{heading}: {text}" if heading and not _OWN_HEADING.match(text) else text
            for heading, text in joined
        )
    return "".join(
        f"\n {heading}: {' '.join(text.split())}" if heading else f"\n{text}"
        for heading, text in joined
    )
