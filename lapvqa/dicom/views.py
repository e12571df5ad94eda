"""From which side a chest was seen, by what its header has, and by which rule that is known.

In this order; what contradicts itself stays unknown (""), which is a value of its own:

1. position     View Position (0018,5101)
2. code         View Code Sequence (0054,0220), by code value or meaning, with its modifiers
3. description  words of the series: Series Description, Protocol Name, Acquisition Device
                Processing Description; of these the first that names a view
   orientation  Patient Orientation (0020,0020): rows run to a side of the body, frontal; to its
                front or back, lateral. Frontal from which side (FRONTAL) only words tell. If words
                and orientation contradict each other, the view is unknown: some devices write the
                same orientation into every image.
4. study        words of the whole study: Performed Procedure Step Description, Study Description.
                They count if a study has one image only (``lapvqa.ingest.verdicts``).

Texts are free, and may hold anything: nothing of them is returned but the name of a view.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import MutableSequence, Sequence
from typing import Literal

from pydicom import Dataset

from lapvqa.schemas import FRONTAL_VIEWS

ViewSource = Literal["position", "code", "description", "orientation", "study", "table", "assumed"]
"""By which rule a view is known; ingest adds the archive's table, and assumed by a parameter."""

# Values of View Position: PS3.3 C.8.1.1.1.1, C.8.11.5 and MIMIC-CXR, and what the rules derive
# beside them: FRONTAL (AP or PA), OBLIQUE, DECUBITUS.
VIEWS = frozenset(
    {
        "AP", "PA", "LL", "RL", "LATERAL", "LAT", "LPO", "RPO", "LAO", "RAO", "LLO", "RLO", "RLD",
        "LLD", "AP AXIAL", "AP LLD", "AP RLD", "PA LLD", "PA RLD", "XTABLE LATERAL", "SWIMMERS",
        "L5 S1", "FRONTAL", "OBLIQUE", "DECUBITUS",
    }
)  # fmt: skip
_FRONTAL = frozenset(FRONTAL_VIEWS)
_LATERAL = frozenset({"LL", "RL", "LATERAL", "LAT", "XTABLE LATERAL"})

# PS3.16 CID 4010, SNOMED CT and the SNOMED RT of older files; R-10214 was PA in the first editions.
_OF_CODE = {
    "399348003": "AP", "R-10206": "AP",
    "272479007": "PA", "R-40888": "PA", "R-10214": "PA",
    "399033003": "FRONTAL", "R-10202": "FRONTAL",
    "399067008": "LATERAL", "R-102CD": "LATERAL",
    "30730003": "LATERAL", "G-A145": "LATERAL",  # sagittal
    "399173006": "LL", "R-10236": "LL",
    "399198007": "RL", "R-10232": "RL",
    "399135007": "LAO", "R-10220": "LAO",
    "399006002": "LPO", "R-10212": "LPO",
    "399356000": "RAO", "R-40985": "RAO",
    "399038007": "RPO", "R-10210": "RPO",
    "399182000": "OBLIQUE", "R-102C1": "OBLIQUE",
    "399236003": "OBLIQUE", "R-10234": "OBLIQUE",  # right
    "399184004": "OBLIQUE", "R-10238": "OBLIQUE",  # left
    "399312000": "OBLIQUE", "R-10208": "OBLIQUE",  # antero-posterior
    "399059000": "OBLIQUE", "R-10216": "OBLIQUE",  # postero-anterior
    "399160007": "OBLIQUE", "R-10204": "OBLIQUE",  # frontal
}  # fmt: skip
_OF_MEANING = {
    "antero-posterior": "AP", "postero-anterior": "PA", "frontal": "FRONTAL",
    "lateral": "LATERAL", "sagittal": "LATERAL", "left lateral": "LL", "right lateral": "RL",
    "left anterior oblique": "LAO", "left posterior oblique": "LPO",
    "right anterior oblique": "RAO", "right posterior oblique": "RPO",
    "oblique": "OBLIQUE", "right oblique": "OBLIQUE", "left oblique": "OBLIQUE",
    "antero-posterior oblique": "OBLIQUE", "postero-anterior oblique": "OBLIQUE",
    "frontal oblique": "OBLIQUE",
}  # fmt: skip
# PS3.16 CID 4011: a beam at an angle, or one across the table.
_MODIFIED = {
    ("AP", "399162004"): "AP AXIAL", ("AP", "R-10242"): "AP AXIAL",
    ("AP", "399196006"): "AP AXIAL", ("AP", "R-10244"): "AP AXIAL",
    ("LATERAL", "111069"): "XTABLE LATERAL",
}  # fmt: skip
_CODED_BY = frozenset({"SCT", "SRT", "SNM3", "99SDM", "DCM"})

# Words of the descriptions, in capitals without accents: English, German, Spanish, French, Italian,
# Portuguese, Dutch. Beginnings end in \w*.
_WORDS = {
    "AP": r"AP|ANTER(O|IOR|EUR|IEUR)? ?POSTER\w*",
    "PA": r"PA|POSTER(O|IOR|EUR|IEUR)? ?ANTER\w*|DORSO ?VENTRAL\w*",
    "FRONTAL": r"FRONTAL\w*|FRENTE|(?:DE|THORAX|POUMONS?|PULMONAIRE) FACE",
    "LATERAL": r"LATERAL\w*|LAT|LATS|LATERO ?LATERAL\w*|LATERO|LLAT|RLAT|PROFIL|PERFIL|PROFILO"
    r"|SEITLICH\w*|SEITL|DWARS|(?:X|CROSS) ?TABLE",
    "OBLIQUE": r"OBL|OBLIQ\w*|OBLICU\w*|SCHRAG\w*|LAO|RAO|LPO|RPO",
    "DECUBITUS": r"DECUB\w*|LLD|RLD",
    "AP AXIAL": r"LORDOTIC\w*|LORDOTI\w*",
}
_WORD_RULES = {view: re.compile(rf"\b(?:{words})\b", re.ASCII) for view, words in _WORDS.items()}
# Chinese and Japanese do not part words, and re.ASCII lets PA begin beside them. 正侧位 is both
# views and holds the signs of both.
_SIGNS = {
    "FRONTAL": re.compile("正[侧側]?[位面]"),
    "LATERAL": re.compile("[侧側][位面]"),
    "OBLIQUE": re.compile("斜位"),
    "PA": re.compile("后前位|後前位"),
    "AP": re.compile("前后位|前後位"),
}
# P.A., p-a, A/P; and descriptions of several images: 2 VIEWS, 2V.
_LETTERS = re.compile(r"\b([AP])[.\-/ ] ?([AP])\b\.?", re.ASCII)
_SEVERAL = re.compile(r"\b(?:[2-9]|TWO|THREE|FOUR) ?(?:VIEWS?|VWS?|V)\b", re.ASCII)

_POSITION, _CODE, _ORIENTATION = "ViewPosition", "ViewCodeSequence", "PatientOrientation"
OF_SERIES = ("SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription")
OF_STUDY = ("PerformedProcedureStepDescription", "StudyDescription")
VIEW_TAGS = (_POSITION, _CODE, _ORIENTATION, *OF_SERIES, *OF_STUDY)
"""The attributes that the rules read."""


def find_view(dataset: Dataset) -> tuple[str, ViewSource | None]:
    """Return the view and the rule that told it; "" and None if it is unknown."""
    position = text_of(dataset, _POSITION)
    if view := clean_view(position) or view_of_words(position):
        return view, "position"
    if view := _coded(dataset):
        return view, "code"
    words = _described(dataset, OF_SERIES)
    oriented = view_of_orientation(text_of(dataset, _ORIENTATION))
    if words and oriented and _contradict(words, oriented):
        return "", None
    if words:
        return words, "description"
    if oriented:
        return oriented, "orientation"
    of_study = _described(dataset, OF_STUDY) if words is None else ""
    return (of_study, "study") if of_study else ("", None)


def clean_view(text: str) -> str:
    """Return the view in capitals if it is a known one, else nothing."""
    view = text.strip().upper().replace("_", " ")
    return view if view in VIEWS else ""


def view_of_meaning(text: str) -> str:
    """Return the view that the meaning of a view code stands for, nothing if it is another."""
    return _OF_MEANING.get(text.strip().lower(), "")


def view_of_orientation(text: str) -> str:
    """Return FRONTAL or LATERAL for Patient Orientation (PS3.3 C.7.6.1.1.1), else nothing.

    Only for axes that follow the body's own (L, F): an oblique view has letters of two.
    """
    axes = {frozenset(axis) for axis in text.upper().split("\\")}
    feet = {frozenset("F"), frozenset("H")}
    if len(axes) != 2 or not axes & feet:
        return ""
    (across,) = axes - feet or {frozenset()}
    if across in (frozenset("L"), frozenset("R")):
        return "FRONTAL"
    return "LATERAL" if across in (frozenset("A"), frozenset("P")) else ""


def view_of_words(text: str) -> str | None:
    """Return the one view that a description names; "" if it names several, None if none."""
    words = " ".join(re.findall(r"\w+", _LETTERS.sub(r"\1\2", plain(text)).replace("_", " ")))
    named = {view for view, rule in _WORD_RULES.items() if rule.search(words)}
    named |= {view for view, sign in _SIGNS.items() if sign.search(words)}
    if not named:
        return None
    # A patient lying on a side is seen from the front: left lateral decubitus is no lateral view.
    for beside in ("DECUBITUS", "OBLIQUE"):
        if beside in named:
            return beside
    if "AP AXIAL" in named:
        named -= _FRONTAL
    if named & _FRONTAL and named <= _FRONTAL:
        exact = named - {"FRONTAL"}
        named = exact if len(exact) == 1 else {"FRONTAL"}
    return named.pop() if len(named) == 1 and not _SEVERAL.search(words) else ""


def _described(dataset: Dataset, names: Sequence[str]) -> str | None:
    """Return what the first of the texts that names a view says; None if none does."""
    found = (view_of_words(text_of(dataset, name)) for name in names)
    return next((view for view in found if view is not None), None)


def _contradict(one: str, other: str) -> bool:
    return (one in _FRONTAL and other in _LATERAL) or (one in _LATERAL and other in _FRONTAL)


def _coded(dataset: Dataset) -> str:
    codes = items_of(dataset, _CODE)
    if not codes:
        return ""
    view = _OF_CODE.get(code_of(codes[0])) or view_of_meaning(text_of(codes[0], "CodeMeaning"))
    for modifier in items_of(codes[0], "ViewModifierCodeSequence"):
        view = _MODIFIED.get((view, code_of(modifier)), view)
    return view


def code_of(item: Dataset) -> str:
    """Return the value of a code of SNOMED CT, SNOMED RT or DICOM; nothing of another scheme."""
    scheme, value = text_of(item, "CodingSchemeDesignator"), text_of(item, "CodeValue")
    return value if scheme in _CODED_BY else ""


def items_of(dataset: Dataset, name: str) -> Sequence[Dataset]:
    """Return a sequence's items; none if it is absent or damaged."""
    try:
        return dataset.get(name) or []
    except Exception:  # noqa: BLE001 - see text_of
        return []


def text_of(dataset: Dataset, name: str) -> str:
    """Return the attribute's text; nothing if it is absent or damaged: no view is worth a file."""
    try:
        value = dataset.get(name)
    except Exception:  # noqa: BLE001 - a damaged value, of whatever kind
        return ""
    if value is None:
        return ""
    many = value if isinstance(value, MutableSequence) else [value]
    return "\\".join(str(one) for one in many).strip().strip("\0").strip()


def plain(text: str) -> str:
    """Return the text in capitals, without accents."""
    decomposed = unicodedata.normalize("NFKD", text.upper())
    return "".join(char for char in decomposed if not unicodedata.combining(char))
