"""Whether an image shows a chest, by what its header has.

In this order; the first that says something counts, and what none tells stays unknown (""):

   quality   words of quality assurance (phantom, QA) in any description: no chest, whatever else
             is stated
1. field     Body Part Examined (0018,0015), but for words that fill it and say nothing. CHEST
             beside a series whose own descriptions name other parts only is no chest: many devices
             write CHEST into every image, none writes LSPINE AP by itself.
2. code      Anatomic Region Sequence (0008,2218), by code value or meaning
3. series    words of Series Description, Protocol Name, Acquisition Device Processing Description
4. study     words of Performed Procedure Step Description, Study Description

Descriptions that name the chest and another part tell nothing. A chest is what shows the lungs:
ribs are one, for their views hold a whole side of the lungs; thoracic spine, sternum, clavicle and
shoulder are none, for theirs are cut to the bone and exposed for it.

The texts are free: nothing of them is returned but "chest" or "other".
"""

from __future__ import annotations

import re
from typing import Literal

from pydicom import Dataset

from lapvqa.dicom.views import OF_SERIES, OF_STUDY, code_of, items_of, plain, text_of

BodyPart = Literal["chest", "other", ""]

_FIELD, _REGION = "BodyPartExamined", "AnatomicRegionSequence"
BODY_PART_TAGS = (_FIELD, _REGION, *OF_SERIES, *OF_STUDY)
"""The attributes that the rules read."""

# PS3.16 CID 4031, SNOMED CT and RT: chest, thorax, lung, rib, and chest beside its neighbours.
_CHEST_CODES = frozenset(
    {
        "51185008", "816094009", "T-D3000", "43799004", "39607008", "T-28000", "113197003",
        "T-11300", "86598002", "416550000", "416775004", "417437006", "416319003", "416152001",
    }
)  # fmt: skip
# Body Part Examined is one of the terms of PS3.16 Annex L; archives write what they like: THORAX,
# PORT CHEST, CHEST_TO_ABDOMEN, TÓRAX, Lunge. Beginnings of words, in capitals without accents, in
# English, German, Spanish, French, Italian, Portuguese, Dutch; CHEST anywhere, because the
# standard's own NECKCHEST and CHESTABDOMEN are one word.
_CHEST = re.compile(
    r"CHEST(?!ER)|BRUSTKORB|\b(?:(?:HEMI)?THORAX|(?:HEMI)?TORAX|(?:EMI)?TORACE|LUNG|PULMO|POLMON"
    r"|POUMON|PLEURA|MEDIASTIN|HEART|CXR|CAGE THORACIQUE|THORACIQUE|TORACICA|TORACICO"
    r"|RIBS?\b|RIPPEN|COSTILLA|COSTELA|(?:GRIL|PARRILLA) COSTAL|ARCOS COSTAIS|RIBBEN"
    r"|COTES\b|COSTE\b)"
    r"|胸|肋骨"
)
# Thoracic spine and sternum hold a word of the chest in some languages; they are looked for first.
_BESIDE_CHEST = re.compile(
    r"\b(?:SPINE|COLUMNA|COLUNA|COLONNA|COLONNE|RACHIS|RACHIDE|VERTEBR\w*|WERVELKOLOM)"
    r"(?: VERTEBRAL\w*)?(?: DORSO?)? (?:THORA[CK]\w*|TORAC\w*)|胸腰?椎|胸骨"
)
_OTHER = re.compile(
    r"\b(?:"
    # spine
    r"[CTL]{0,2}SPINE|SPINAL|LUMBAR\w*|LUMBAL\w*|LOMBA\w*|LOMBO\w*|LENDEN\w*|CERVICAL\w*"
    r"|SACR(?:UM|AL|O)\w*|COCCYX|VERTEBR\w*|SCOLIOSIS|[HBL]WS|\w*WIRBEL\w*|COLUMNA|COLUNA|COLONNA"
    r"|COLONNE|RACHIS|RACHIDE|WERVELKOLOM|[CTL]WK"
    # abdomen, pelvis
    r"|ABDOM\w*|ADDOM\w*|KUB|BUIK\w*|PELVI[SC]\w*|PELVIENN\w*|BECKEN\w*|BEKKEN\w*|BASSIN|BACINO|BACIA"
    r"|HIPS?|HUFT\w*|HEUP\w*|HANCHES?|CADERAS?|ANCA|ANCHE|QUADRIL|ISG"
    # leg
    r"|KNEES?|KNIEE?|KNIEGELENK\w*|GENOUX?|RODILLAS?|GINOCCHI[OA]?|JOELHOS?|PATELLA\w*|FEMUR|FEMORA\w*"
    r"|THIGHS?|LEGS?|TIBIA\w*|FIBULA\w*|\w*SCHENKEL\w*|CUISSE|JAMBES?|PIERNAS?|GAMBA|COXA"
    r"|ANKLES?|\w*SPRUNGGELENK\w*|OSG|CHEVILLES?|TOBILLOS?|CAVIGLI[AE]|TORNOZELOS?|ENKELS?"
    r"|FOOT|(?<!\d )FEET|FUSS\w*|FUESSE|VOET\w*|PIEDS? (?:DROIT|GAUCHE)|PIE (?:DERECH|IZQUIERD)\w*"
    r"|PIEDE|PE (?:DIREITO|ESQUERDO)|TOES?|ZEHEN?|ORTEILS?|CALCANE\w*|KALKANE\w*|FERSE"
    # shoulder, arm
    r"|SHOULDERS?|SCHULTER\w*|SCHOUDER\w*|EPAULES?|HOMBROS?|SPALL[AE]|OMBROS?|CLAVIC\w*|CLAVIKULA"
    r"|SCHLUSSELBEIN|SLEUTELBEEN|SCAPULA\w*|HUMERUS|(?<!C )ARMS?(?! (?:UP|DOWN|RAISED|ABOVE))"
    r"|\w*FOREARMS?|UNTERARM\w*|OBERARM\w*|AVANT BRAS|ANTEBRA\w*|ELBOWS?|ELLENBOGEN\w*|ELLEBOOG"
    r"|COUDES?|CODOS?|GOMIT[OI]|COTOVELOS?"
    r"|WRISTS?|HANDGELENK\w*|POIGNETS?|MUNECAS?|POLSO|POLSI|POLS|PUNHOS?"
    r"|HANDS?|HANDE|HANDEN|HAENDE|MAINS? (?:DROITE|GAUCHE|DE FACE)|MANOS?|MANI|MAO|MAOS"
    r"|FINGERS?|DOIGTS?|DEDOS?|DITO|THUMBS?|DAUMEN"
    # head, neck; sternum; breast
    r"|SKULL|SCHADEL\w*|SCHEDEL|CRANE|CRANEO|CRANIO|CRANIUM|MANDIB\w*|MAXILL\w*|FACIAL|ORBITS?"
    r"|PARANASAL\w*|NNH|NECK|NASAL|TEETH|DENTAL"
    r"|STERN(?:UM|AL)|STERNO|ESTERNON|ESTERNO|BREAST|MAMMO\w*|MAMMA"
    r")\b|[颈頸腰][椎推]|脊柱|脊椎|腹|骨盆|骨盤|髋|股関節|膝|肩|肘|腕関節|手部|手指|手関節|足部|足関節|踝"
    r"|头颅|頭部|颅骨",
    re.ASCII,
)
_QUALITY = re.compile(r"\b(?:\w*PHANTOMS?|FANTOM\w*|QA|CONSTANCY|KONSTANZPRUF\w*)\b", re.ASCII)
# Values that fill the field and say nothing.
_NO_PART = frozenset(
    {"UNKNOWN", "UNDEFINED", "UNSPECIFIED", "NONE", "NULL", "NA", "N A", "OTHER", "DEFAULT"}
)


def find_body_part(dataset: Dataset) -> BodyPart:
    """Return whether the header says that the image shows a chest, or another part."""
    series, study = (_described(dataset, names) for names in (OF_SERIES, OF_STUDY))
    if _QUALITY.search(f"{series} {study}"):
        return "other"
    stated = chest_stated(text_of(dataset, _FIELD))
    named = part_of_words(series)
    if stated:
        return "other" if named == "other" else stated
    if coded := _coded(dataset):
        return coded
    return (part_of_words(study) if named is None else named) or ""


def chest_stated(text: str) -> BodyPart:
    """Return whether a stated body part is the chest or another; nothing if none is stated."""
    words = " ".join(re.findall(r"[A-Z]+", plain(text)))
    if not words or words in _NO_PART:
        return ""
    return "chest" if _CHEST.search(_BESIDE_CHEST.sub("SPINE", words)) else "other"


def part_of_words(text: str) -> BodyPart | None:
    """Return which part a description names; "" if the chest and another, None if none."""
    words = " ".join(re.findall(r"[^\W_]+", plain(text)))
    apart = _BESIDE_CHEST.sub(" SPINE ", words)
    is_chest, is_other = _CHEST.search(apart) is not None, _OTHER.search(apart) is not None
    if is_chest:
        return "" if is_other else "chest"
    return "other" if is_other else None


def _described(dataset: Dataset, names: tuple[str, ...]) -> str:
    return plain(" ".join(text_of(dataset, name) for name in names)).replace("_", " ")


def _coded(dataset: Dataset) -> BodyPart:
    regions = items_of(dataset, _REGION)
    if not regions:
        return ""
    if code_of(regions[0]) in _CHEST_CODES:
        return "chest"
    return chest_stated(text_of(regions[0], "CodeMeaning"))
