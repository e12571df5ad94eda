"""The allow-list of DICOM attributes: nothing else is parsed, so nothing else can leak.

``Header`` is all that a worker learns about a file. Its four identifiers are hashed in the same
process (``lapvqa.ingest.one_file``) and go no further.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Literal

from pydicom import Dataset
from pydicom.tag import BaseTag, Tag

from lapvqa.dicom.body_part import BODY_PART_TAGS, BodyPart, find_body_part
from lapvqa.dicom.objects import (
    Companion,
    companion_kind,
    is_for_processing,
    is_post_processed,
    require_radiograph,
)
from lapvqa.dicom.person import Sex, band_of_text, clean_sex
from lapvqa.dicom.reasons import Reason
from lapvqa.dicom.views import OF_SERIES, VIEW_TAGS, ViewSource, find_view
from lapvqa.errors import DicomError
from lapvqa.params import Modality

READ_TAGS: tuple[BaseTag, ...] = tuple(
    Tag(name)
    for name in (
        "SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "StudyDate", "StudyTime",
        "AccessionNumber", "Modality", "ConversionType", "PresentationIntentType", "PatientID",
        "PatientSex", "PatientAge", "PatientIdentityRemoved", "StudyInstanceUID",
        "BurnedInAnnotation", *VIEW_TAGS, *BODY_PART_TAGS, "ImageType", "DerivationDescription",
        "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames",
        "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
        "PixelPaddingValue", "PixelPaddingRangeLimit", "WindowCenter", "WindowWidth",
        "VOILUTFunction", "RescaleIntercept", "RescaleSlope", "ModalityLUTSequence",
        "VOILUTSequence", "PresentationLUTShape",
    )
)  # fmt: skip

MONOCHROME = frozenset({"MONOCHROME1", "MONOCHROME2"})
COLOUR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT"})

Answer = Literal["yes", "no", ""]


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
    """Empty if unknown: ``lapvqa.dicom.views``."""
    photometric: str
    bits_stored: int
    transfer_syntax: str
    accession: str = ""
    view_source: ViewSource | None = None
    """The rule that told the view."""
    modality: Modality | None = None
    """None for what is no DICOM image."""
    is_for_processing: bool = False
    is_post_processed: bool = False
    body_part: BodyPart = ""
    """Empty if unknown: ``lapvqa.dicom.body_part``."""
    burned_in: Answer = ""
    """Whether Burned In Annotation (0028,0301) says that the pixels name the patient."""
    identity_removed: Answer = ""
    """What Patient Identity Removed (0012,0062) says."""
    sex: Sex = ""
    age_band: str = ""
    """Ten years, or empty: ``lapvqa.dicom.person``. The age itself is not kept."""


class CompanionError(DicomError):
    """The object is no image but goes with images; ``header`` holds its identifiers."""

    def __init__(self, kind: Companion, header: Header) -> None:
        super().__init__(Reason.COMPANION, kind)
        self.header = header


def read_header(dataset: Dataset, *, transfer_syntax: str, sop_class: str = "") -> Header:
    """Pick the allowed attributes.

    ``sop_class`` is the file meta's, which counts where the data set has none. Raises
    CompanionError if the object is no image, DicomError if it is one of another modality.
    """
    stated, modality = (
        _text(dataset, "SOPClassUID") or sop_class,
        _text(dataset, "Modality").upper(),
    )
    view, view_source = find_view(dataset)
    header = Header(
        instance_uid=_text(dataset, "SOPInstanceUID"),
        study_uid=_text(dataset, "StudyInstanceUID"),
        patient_id=_text(dataset, "PatientID"),
        accession=_text(dataset, "AccessionNumber"),
        study_date=clean_date(_text(dataset, "StudyDate")),
        study_time=clean_time(_text(dataset, "StudyTime")),
        view=view,
        view_source=view_source,
        photometric=_text(dataset, "PhotometricInterpretation").upper(),
        bits_stored=_bits_stored(dataset),
        transfer_syntax=transfer_syntax,
        is_for_processing=is_for_processing(
            stated, _text(dataset, "PresentationIntentType").upper()
        ),
        is_post_processed=is_post_processed(
            "\\".join(map(str, dataset.get("ImageType") or ())),
            _text(dataset, "DerivationDescription"),
            " ".join(_text(dataset, name) for name in OF_SERIES[:2]),
        ),
        body_part=find_body_part(dataset),
        burned_in=yes_or_no(_text(dataset, "BurnedInAnnotation")),
        identity_removed=yes_or_no(_text(dataset, "PatientIdentityRemoved")),
        sex=clean_sex(_text(dataset, "PatientSex")),
        age_band=band_of_text(_text(dataset, "PatientAge")),
    )
    if kind := companion_kind(stated, modality):
        raise CompanionError(kind, header)
    return replace(
        header,
        modality=require_radiograph(stated, modality, _text(dataset, "ConversionType").upper()),
    )


def require_one_picture(header: Header, dataset: Dataset) -> None:
    """Raise DicomError if colours or frames are not usable."""
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise DicomError(
            Reason.MULTI_FRAME, f"expected one frame, found {int(dataset.NumberOfFrames)}"
        )
    if header.photometric not in MONOCHROME | COLOUR:
        shown = header.photometric if header.photometric == "PALETTE COLOR" else "another"
        raise DicomError(
            Reason.UNSUPPORTED_PHOTOMETRIC, f"expected a grey or RGB image, found {shown}"
        )


def yes_or_no(text: str) -> Answer:
    """Return the answer of an attribute whose terms are YES and NO; nothing for all else."""
    answers: dict[str, Answer] = {"YES": "yes", "NO": "no"}
    return answers.get(text.strip().upper(), "")


def clean_date(text: str) -> str:
    """Return yyyymmdd; nothing if ``text`` is no date (DA, PS3.5 6.2; old form yyyy.mm.dd)."""
    digits = text.strip().replace(".", "")
    try:
        if len(digits) == 8 and digits.isascii() and digits.isdecimal():  # 50 times as fast
            date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
            return digits
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


def _bits_stored(dataset: Dataset) -> int:
    bits = dataset.get("BitsStored")  # absent from what is no image
    return bits if isinstance(bits, int) else 0


def _text(dataset: Dataset, name: str) -> str:
    value = dataset.get(name)
    return "" if value is None else str(value).strip().strip("\0").strip()
