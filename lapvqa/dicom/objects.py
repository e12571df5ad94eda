"""Which kind of DICOM object a file holds: a radiograph, another image, or none at all.

By SOP class first (PS3.4 B.5), the file meta's where the data set names none, then by Modality
(PS3.3 C.7.3.1.1.1). What is no image (a DICOMDIR, a report, an overlay of lines) is a companion of
the images. What could be a radiograph is only named here; which of them are wanted the parameters
say (``lapvqa.ingest.verdicts``), so that another answer reads no file again.
"""

from __future__ import annotations

import re
from typing import Literal

from pydicom import uid as uids

from lapvqa.dicom.reasons import Reason
from lapvqa.errors import DicomError
from lapvqa.params import Modality

Companion = Literal[
    "dicomdir", "structured_report", "presentation_state", "key_object", "encapsulated_document",
    "waveform", "radiotherapy", "segmentation", "other_object",
]  # fmt: skip

_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
_SPELLINGS: dict[str, Modality] = {
    "CR": "CR",
    "DX": "DX",
    "RG": "RG",
    "RF": "RF",
    "XA": "XA",
    "OT": "OT",
    "SC": "SC",
    "DR": "DX",  # never in the standard, often in files
    "XR": "DX",
    "": "none",
}
_BY_CLASS: dict[str, Modality] = {
    "1.2.840.10008.5.1.4.1.1.1": "CR",
    "1.2.840.10008.5.1.4.1.1.1.1": "DX",
    _FOR_PROCESSING: "DX",
    "1.2.840.10008.5.1.4.1.1.12.1": "XA",
    "1.2.840.10008.5.1.4.1.1.12.1.1": "XA",
    "1.2.840.10008.5.1.4.1.1.12.2": "RF",
    "1.2.840.10008.5.1.4.1.1.12.2.1": "RF",
    "1.2.840.10008.5.1.4.1.1.7": "SC",
    "1.2.840.10008.5.1.4.1.1.7.1": "SC",
    "1.2.840.10008.5.1.4.1.1.7.2": "SC",
    "1.2.840.10008.5.1.4.1.1.7.3": "SC",
    "1.2.840.10008.5.1.4.1.1.7.4": "SC",
}
# Conversion Type (0008,0064) of pictures that a program drew: Modality then names its source, as
# in the result pages of detection software (PS3.3 C.8.6.1).
_PROCESSED = re.compile(
    r"\b(?:BONES?|RIBS?) (?:SUPPRES|SUBTRACT|REMOV|ELIMINAT|FREE)|\b(?:DE ?BON|BONE ?LESS)"
    r"|\b(?:TUBES?|LINES?|CATHETERS?|PNEUMOTHORAX|PTX)(?: AND LINES?)? (?:ENHANC|VISUALI)"
    r"|\bTEMPORAL SUBTRACT|\bDUAL ENERGY|\bCOMPANION (?:VIEW|IMAGE)|\bCLEARREAD|\bSOFTVIEW"
    r"|KNOCHEN ?(?:UNTERDR|SUBTRA|SUPPR)|\bSUPPRESSION (?:OSSEUSE|DES OS)"
    r"|\bSUPRESI[OÓ]N [OÓ]SEA|\bSOPPRESSIONE OSSEA|\bSUPRESS[AÃ]O [OÓ]SSEA"
)
# Of a derived image only: a series called so may be an ordinary one of the neck.
_SPLIT_TISSUE = re.compile(r"\bSOFT ?TISSUE|\bBONE (?:IMAGE|ONLY)")
_DRAWN = frozenset({"DRW", "SYN", "WSD"})
# First match counts: key objects are one of the structured reports' classes.
_COMPANION_CLASSES: tuple[tuple[str, Companion], ...] = (
    ("1.2.840.10008.1.3.10", "dicomdir"),
    ("1.2.840.10008.5.1.4.1.1.88.59", "key_object"),
    ("1.2.840.10008.5.1.4.1.1.88.", "structured_report"),
    ("1.2.840.10008.5.1.4.1.1.11.", "presentation_state"),
    ("1.2.840.10008.5.1.4.1.1.104.", "encapsulated_document"),
    ("1.2.840.10008.5.1.4.1.1.9.", "waveform"),
    ("1.2.840.10008.5.1.4.1.1.66.4", "segmentation"),
    ("1.2.840.10008.5.1.4.1.1.66.5", "segmentation"),
    ("1.2.840.10008.5.1.4.1.1.66.7", "segmentation"),
    ("1.2.840.10008.5.1.4.1.1.481.", "radiotherapy"),
    ("1.2.840.10008.5.1.4.34.", "radiotherapy"),
)
_COMPANION_MODALITIES: dict[str, Companion] = {
    "SR": "structured_report", "PR": "presentation_state", "KO": "key_object",
    "DOC": "encapsulated_document", "SEG": "segmentation", "RTSTRUCT": "radiotherapy",
    "RTPLAN": "radiotherapy", "RTRECORD": "radiotherapy", "ECG": "waveform", "EPS": "waveform",
    "HD": "waveform", "AU": "waveform", "RESP": "waveform", "REG": "other_object",
    "FID": "other_object", "RWV": "other_object", "PLAN": "other_object", "SMR": "other_object",
}  # fmt: skip


def companion_kind(sop_class: str, modality: str) -> Companion | None:
    """Return what kind of companion the object is; None for an image, or if nothing tells."""
    if not _is_standard(sop_class):
        return _COMPANION_MODALITIES.get(modality)
    if "Image Storage" in uids.UID(sop_class).name:
        return None
    known = (kind for prefix, kind in _COMPANION_CLASSES if sop_class.startswith(prefix))
    return next(known, "other_object")


def require_radiograph(sop_class: str, modality: str, conversion: str) -> Modality:
    """Return the kind of an image that may be a radiograph.

    ``conversion`` is the Conversion Type. Raises DicomError for CT, MR, US, mammography...
    """
    by_class = _BY_CLASS.get(sop_class)
    stated = _SPELLINGS.get(modality)
    if stated is None or (by_class is None and _is_standard(sop_class)):
        found = modality[:2] if stated is None else f"{modality or 'none'}, and another object"
        raise DicomError(Reason.NOT_A_RADIOGRAPH, f"expected modality CR, DX or RG, found {found}")
    if by_class == "SC" and (conversion in _DRAWN or stated == "none"):
        return "SC"
    # A class that names no modality (a private one, or none) leaves it to Modality.
    return by_class if stated == "none" and by_class else stated


def is_for_processing(sop_class: str, intent: str) -> bool:
    """Say whether the image is raw: not meant for a reader's eye (PS3.3 C.8.11.1.1.1)."""
    return sop_class == _FOR_PROCESSING or intent.startswith("FOR PROCESSING")


def is_post_processed(image_type: str, derivation: str, series: str) -> bool:
    """Say whether software made the picture of another one: bones suppressed, edges enhanced.

    ``image_type`` are the values of Image Type (0008,0008). DERIVED alone says nothing: devices
    write it into ordinary images. What was done has to be named too, there, in the ``derivation``
    (0008,2111), or in the descriptions of the ``series``.
    """
    kind, _, rest = image_type.upper().partition("\\")
    if kind.strip() != "DERIVED":
        return False
    told = re.sub(r"[\W_]+", " ", f"{rest} {derivation}".upper())
    named = re.sub(r"[\W_]+", " ", series.upper())
    return (
        _PROCESSED.search(f"{told} {named}") is not None or _SPLIT_TISSUE.search(told) is not None
    )


def _is_standard(sop_class: str) -> bool:
    return uids.UID(sop_class).type in ("SOP Class", "Media Storage Service", "Meta SOP Class")
