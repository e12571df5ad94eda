"""The allow-list of DICOM attributes: nothing else is parsed, so nothing else can leak.

``Header`` is all that a worker learns about a file. Its three identifiers are hashed in the same
process (``lapvqa.ingest.one_file``) and go no further.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydicom import Dataset
from pydicom.tag import BaseTag, Tag

from lapvqa.dicom.reasons import Reason
from lapvqa.errors import DicomError

READ_TAGS: tuple[BaseTag, ...] = tuple(
    Tag(name)
    for name in (
        "SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "StudyDate", "StudyTime",
        "Modality", "PatientID", "PatientIdentityRemoved", "BodyPartExamined", "ViewPosition",
        "StudyInstanceUID", "ViewCodeSequence", "BurnedInAnnotation",
        "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames",
        "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
        "PixelPaddingValue", "PixelPaddingRangeLimit", "WindowCenter", "WindowWidth",
        "VOILUTFunction", "RescaleIntercept", "RescaleSlope", "ModalityLUTSequence",
        "VOILUTSequence", "PresentationLUTShape",
    )
)  # fmt: skip

MONOCHROME = frozenset({"MONOCHROME1", "MONOCHROME2"})
COLOUR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT"})

# Modalities under which projection radiographs are found; MG, CT, SR... are not.
_MODALITIES = frozenset({"", "CR", "DX", "DR", "RG", "XR", "RF", "OT", "SC"})
# CR, DX for presentation, DX for processing, X-ray RF, and the secondary captures.
_SOP_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.1",
    "1.2.840.10008.5.1.4.1.1.1.1",
    "1.2.840.10008.5.1.4.1.1.1.1.1",
    "1.2.840.10008.5.1.4.1.1.12.2",
    "1.2.840.10008.5.1.4.1.1.7",
    "1.2.840.10008.5.1.4.1.1.7.2",
    "1.2.840.10008.5.1.4.1.1.7.3",
)

# Values met in View Position (0018,5101): PS3.3 C.8.1.1.1.1, C.8.11.5 and MIMIC-CXR. Others are
# dropped: free text in this field could be anything.
VIEWS = frozenset(
    {
        "AP", "PA", "LL", "RL", "LATERAL", "LAT", "LPO", "RPO", "LAO", "RAO", "LLO", "RLO", "RLD",
        "LLD", "AP AXIAL", "AP LLD", "AP RLD", "PA LLD", "PA RLD", "XTABLE LATERAL", "SWIMMERS",
        "L5 S1",
    }
)  # fmt: skip
# Code Meanings of View Code Sequence (0054,0220), PS3.16 CID 4010, in small letters.
_VIEW_OF_MEANING = {
    "antero-posterior": "AP",
    "postero-anterior": "PA",
    "lateral": "LATERAL",
    "left lateral": "LL",
    "right lateral": "RL",
    "left anterior oblique": "LAO",
    "left posterior oblique": "LPO",
    "right anterior oblique": "RAO",
    "right posterior oblique": "RPO",
}

BodyPart = Literal["chest", "other", ""]
Answer = Literal["yes", "no", ""]

# Body Part Examined (0018,0015) is one of the terms of PS3.16 Annex L; archives write what they
# like: THORAX, PORT CHEST, CHEST_TO_ABDOMEN, TÓRAX, Lunge. Beginnings of words, in the languages
# of the public archives; CHEST anywhere, because the standard's own NECKCHEST and CHESTABDOMEN are
# one word. What shows the chest beside its neighbour is a chest.
_CHEST = re.compile(
    r"CHEST|BRUSTKORB|\b(THORAX|TORAX|TORACE|LUNG|PULMO|POUMON|PLEURA|MEDIASTIN|HEART|RIBS?\b|CXR)"
)
# Values that fill the field and say nothing.
_NO_PART = frozenset(
    {"UNKNOWN", "UNDEFINED", "UNSPECIFIED", "NONE", "NULL", "NA", "N A", "OTHER", "DEFAULT"}
)


@dataclass(frozen=True)
class Header:
    """Attributes of a file beside its pixels; identifiers are empty if absent."""

    instance_uid: str
    study_uid: str
    patient_id: str
    study_date: str
    """yyyymmdd, empty if absent or impossible."""
    study_time: str
    """hhmmss[.ffffff], empty if absent or impossible."""
    view: str
    photometric: str
    bits_stored: int
    transfer_syntax: str
    body_part: BodyPart = ""
    burned_in: Answer = ""
    """Whether Burned In Annotation (0028,0301) says that the pixels name the patient."""
    identity_removed: Answer = ""
    """What Patient Identity Removed (0012,0062) says."""


def require_radiograph(dataset: Dataset) -> None:
    """Raise DicomError if the object is another kind: another modality, a report, a mask..."""
    modality, sop_class = _text(dataset, "Modality").upper(), _text(dataset, "SOPClassUID")
    known = not sop_class or sop_class in _SOP_CLASSES
    if modality not in _MODALITIES or (not known and modality in {"", "OT", "SC"}):
        kind = "" if known else ", and another kind of object"
        raise DicomError(
            Reason.NOT_A_RADIOGRAPH,
            f"expected modality CR or DX, found {modality[:2] or 'none'}{kind}",
        )


def read_header(dataset: Dataset, *, transfer_syntax: str) -> Header:
    """Pick the allowed attributes; raises DicomError if colours or frames are not usable."""
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise DicomError(
            Reason.MULTI_FRAME, f"expected one frame, found {int(dataset.NumberOfFrames)}"
        )
    photometric = _text(dataset, "PhotometricInterpretation").upper()
    if photometric not in MONOCHROME | COLOUR:
        shown = photometric if photometric == "PALETTE COLOR" else "another"
        raise DicomError(
            Reason.UNSUPPORTED_PHOTOMETRIC, f"expected a grey or RGB image, found {shown}"
        )
    return Header(
        instance_uid=_text(dataset, "SOPInstanceUID"),
        study_uid=_text(dataset, "StudyInstanceUID"),
        patient_id=_text(dataset, "PatientID"),
        study_date=clean_date(_text(dataset, "StudyDate")),
        study_time=clean_time(_text(dataset, "StudyTime")),
        view=clean_view(_text(dataset, "ViewPosition")) or _coded_view(dataset),
        photometric=photometric,
        bits_stored=int(dataset.get("BitsStored") or 0),
        transfer_syntax=transfer_syntax,
        body_part=chest_stated(_text(dataset, "BodyPartExamined")),
        burned_in=yes_or_no(_text(dataset, "BurnedInAnnotation")),
        identity_removed=yes_or_no(_text(dataset, "PatientIdentityRemoved")),
    )


def chest_stated(text: str) -> BodyPart:
    """Return whether a stated body part is the chest or another; nothing if none is stated."""
    decomposed = unicodedata.normalize("NFKD", text.upper())
    letters = "".join(char for char in decomposed if not unicodedata.combining(char))
    words = " ".join(re.findall(r"[A-Z]+", letters))
    if not words or words in _NO_PART:
        return ""
    return "chest" if _CHEST.search(words) else "other"


def yes_or_no(text: str) -> Answer:
    """Return the answer of an attribute whose terms are YES and NO; nothing for all else."""
    answers: dict[str, Answer] = {"YES": "yes", "NO": "no"}
    return answers.get(text.strip().upper(), "")


def clean_view(text: str) -> str:
    """Return the view in capitals if it is a known one, else nothing."""
    view = text.strip().upper().replace("_", " ")
    return view if view in VIEWS else ""


def view_of_meaning(text: str) -> str:
    """Return the view that the meaning of a view code stands for, nothing if it is another."""
    return _VIEW_OF_MEANING.get(text.strip().lower(), "")


def clean_date(text: str) -> str:
    """Return yyyymmdd; nothing if ``text`` is no date (DA, PS3.5 6.2; old form yyyy.mm.dd)."""
    digits = text.strip().replace(".", "")
    try:
        return datetime.strptime(digits, "%Y%m%d").strftime("%Y%m%d")
    except ValueError:
        return ""


def clean_time(text: str) -> str:
    """Return hhmmss and a fraction if given; shorter times are filled up (TM, PS3.5 6.2)."""
    match = re.fullmatch(r"(\d{2})(\d{2})?(\d{2})?(\.\d{1,6})?", text.strip().replace(":", ""))
    if match is None:
        return ""
    hour, minute, second, fraction = (part or "" for part in match.groups())
    return hour + (minute or "00") + (second or "00") + fraction


def _coded_view(dataset: Dataset) -> str:
    codes = dataset.get("ViewCodeSequence") or []
    return view_of_meaning(str(codes[0].get("CodeMeaning", ""))) if codes else ""


def _text(dataset: Dataset, name: str) -> str:
    value = dataset.get(name)
    return "" if value is None else str(value).strip().strip("\0").strip()
