"""Reject codes: why a file, report or study is rejected, and what to do about it.

``as_reason`` turns whatever a parser or decoder raises into one of them, without quoting the file.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from lapvqa.errors import DicomError


class Reason(StrEnum):
    """Codes of column ``reason`` in rejects.parquet."""

    ERASED = "erased"
    UNREADABLE = "unreadable"
    CHANGED = "changed"
    TOO_LARGE = "too_large"
    BAD_PACKING = "bad_packing"
    NOT_DICOM = "not_dicom"
    MISSING_PREAMBLE = "missing_preamble"
    BAD_HEADER = "bad_header"
    MISSING_ID = "missing_id"
    NOT_A_RADIOGRAPH = "not_a_radiograph"
    FOR_PROCESSING = "for_processing"
    POST_PROCESSED = "post_processed"
    COLOUR = "colour"
    NOT_A_CHEST = "not_a_chest"
    BURNED_IN = "burned_in"
    IDENTITY_NOT_REMOVED = "identity_not_removed"
    NO_PIXEL_DATA = "no_pixel_data"
    TRUNCATED = "truncated"
    WRONG_LENGTH = "wrong_length"
    MULTI_FRAME = "multi_frame"
    UNSUPPORTED_PHOTOMETRIC = "unsupported_photometric"
    UNSUPPORTED_BITS = "unsupported_bits"
    UNSUPPORTED_SYNTAX = "unsupported_syntax"
    DECODER_MISSING = "decoder_missing"
    DECODE_FAILED = "decode_failed"
    DECODER_CRASHED = "decoder_crashed"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    TOO_SMALL = "too_small"
    CONSTANT_IMAGE = "constant_image"
    OUTSIDE_LAYOUT = "outside_layout"
    DUPLICATE_UID = "duplicate_uid"
    DUPLICATE_CONTENT = "duplicate_content"
    DUPLICATE_FILM = "duplicate_film"
    PATIENT_MISMATCH = "patient_mismatch"
    NO_SPLIT = "no_split"
    LATERAL_NOT_ASKED = "lateral_not_asked"
    VIEW_UNKNOWN = "view_unknown"
    REPORT_WITHOUT_STUDY = "report_without_study"
    BAD_REPORT = "bad_report"
    REPORT_ENCODING = "report_encoding"
    REPORT_FORMAT = "report_format"
    NOT_A_REPORT = "not_a_report"
    SUPERSEDED_REPORT = "superseded_report"
    AMBIGUOUS_REPORT = "ambiguous_report"
    REPORT_WITHDRAWN = "report_withdrawn"
    IDENTITY_IN_REPORT = "identity_in_report"
    STUDY_EMPTY = "study_empty"
    COMPANION = "companion"
    """No reject: an object that goes with images (a DICOMDIR, a structured report...)."""

    @property
    def remedy(self) -> str:
        """Return one sentence that says what to do."""
        return _REMEDIES[self]


# Fetched again on the next run instead of being remembered: the cause may be gone by then.
TRANSIENT = frozenset({Reason.UNREADABLE, Reason.CHANGED, Reason.DECODER_CRASHED})

# These files belong to a study that another file stands for; they say nothing of its folder.
COPIES = frozenset(
    {
        Reason.DUPLICATE_UID, Reason.DUPLICATE_CONTENT, Reason.DUPLICATE_FILM,
        Reason.PATIENT_MISMATCH,
    }
)  # fmt: skip

# Left out on request, so they do not count against ingest.reject_budget.
BY_REQUEST = frozenset(
    {Reason.ERASED, Reason.LATERAL_NOT_ASKED, Reason.VIEW_UNKNOWN, Reason.COMPANION}
)

_REMEDIES = {
    Reason.ERASED: "delete the file from the archive: its patient was erased (docs/erasure.md)",
    Reason.UNREADABLE: "check that the file exists and that this user may read it",
    Reason.CHANGED: "let the copying into the archive finish, then run again",
    Reason.TOO_LARGE: "check the size and the rows and columns in the header; fetch a new copy",
    Reason.BAD_PACKING: "test it with `unzip -t` or `gzip -t`; fetch it again, or unpack it and "
    "move the packed file out of the archive",
    Reason.NOT_DICOM: "remove the file, or fetch it again if it should be an image",
    Reason.MISSING_PREAMBLE: "rewrite it as a DICOM file, for example with `dcmconv +F`",
    Reason.BAD_HEADER: "fetch the file again from the archive that exported it",
    Reason.MISSING_ID: "keep or fill in SOPInstanceUID, StudyInstanceUID and PatientID "
    "(a pseudonym will do) when exporting",
    Reason.NOT_A_RADIOGRAPH: "export only projection radiographs (CR, DX, RG), or add RF, XA, OT, "
    "SC or none (not stated) to ingest.modalities",
    Reason.FOR_PROCESSING: "export the image FOR PRESENTATION; this one is the detector's raw data",
    Reason.POST_PROCESSED: "export the image that it was made of; a copy with bones suppressed or "
    "lines enhanced shows what no detector saw",
    Reason.COLOUR: "export radiographs in grey, or set ingest.colour to accept",
    Reason.NOT_A_CHEST: "export chest images only, or set ingest.body_part to any",
    Reason.BURNED_IN: "blank the burned-in text, or set ingest.burned_in to accept",
    Reason.IDENTITY_NOT_REMOVED: "de-identify it when exporting, or set "
    "ingest.deid.identity_removed to accept",
    Reason.NO_PIXEL_DATA: "fetch the file again; the copy holds a header only",
    Reason.TRUNCATED: "fetch the file again; the copy ends too early",
    Reason.WRONG_LENGTH: "fetch the file again; header and pixel data do not belong together",
    Reason.MULTI_FRAME: "export single images; cine loops and stacks are not radiographs",
    Reason.UNSUPPORTED_PHOTOMETRIC: "export the image as MONOCHROME1 or MONOCHROME2",
    Reason.UNSUPPORTED_BITS: "export the image with 8 or 16 bits allocated per pixel",
    Reason.UNSUPPORTED_SYNTAX: "convert it to Explicit VR Little Endian, e.g. with `gdcmconv -w`",
    Reason.DECODER_MISSING: "install the project's locked packages; `lapvqa doctor` lists decoders",
    Reason.DECODE_FAILED: "fetch the file again; it is damaged, or not what its name says",
    Reason.DECODER_CRASHED: "fetch the file again; if that does not help, convert it with gdcmconv",
    Reason.TIMED_OUT: "fetch the file again, or raise ingest.limits.seconds; then "
    "`lapvqa rejects retry`",
    Reason.OUT_OF_MEMORY: "check the rows and columns in its header, or raise "
    "ingest.limits.memory_mb; then `lapvqa rejects retry`",
    Reason.TOO_SMALL: "thumbnails are not used; export the full image",
    Reason.CONSTANT_IMAGE: "look at the image: it is blank, or its window shows none of it",
    Reason.OUTSIDE_LAYOUT: "move it to where its layout has such files, or out of the archive",
    Reason.DUPLICATE_UID: "nothing, if the first copy is the right one; otherwise remove that one",
    Reason.DUPLICATE_CONTENT: "nothing: the same bytes were taken once",
    Reason.DUPLICATE_FILM: "nothing: the same film of this patient was taken once; a PACS writes "
    "it with other bytes, at times under another UID",
    Reason.PATIENT_MISMATCH: "correct the PatientID: one study names two patients; if a table "
    "numbers patients otherwise than the images do, set reports.patient: none in local.yaml",
    Reason.NO_SPLIT: "add its patient to the split table, or remove that table to split by share",
    Reason.LATERAL_NOT_ASKED: "set ingest.views to any if lateral images are wanted",
    Reason.VIEW_UNKNOWN: "fill in ViewPosition, or set ingest.views to any, or "
    "ingest.unknown_view to frontal",
    Reason.REPORT_WITHOUT_STUDY: "add the study's images, or name the report by its study UID or "
    "accession number; docs/ingest.md shows how reports are matched",
    Reason.BAD_REPORT: "fetch the report again; it could not be read as its layout promises",
    Reason.REPORT_ENCODING: "write it in UTF-8, or name its encoding in local.yaml: "
    "reports.encoding",
    Reason.REPORT_FORMAT: "export it as plain text, RTF or HTML",
    Reason.NOT_A_REPORT: "nothing, if it is no report; docs/ingest.md shows what is read",
    Reason.SUPERSEDED_REPORT: "nothing: another report stands for its study",
    Reason.AMBIGUOUS_REPORT: "name the report by its study UID; or, if it is one of "
    "several of its study, give them a date or status, or set ingest.several_reports",
    Reason.REPORT_WITHDRAWN: "nothing: it says itself that it does not count",
    Reason.IDENTITY_IN_REPORT: "remove what names somebody (`lapvqa rejects` gives kind and "
    "place), or set ingest.deid.reports to flag",
    Reason.STUDY_EMPTY: "see the rejects of the study's files",
    Reason.COMPANION: "nothing: it is counted beside the images",
}


@contextmanager
def as_reason(reason: Reason, expected: str) -> Iterator[None]:
    """Turn whatever a parser or decoder raises into DicomError; only its type is kept.

    Their texts may quote the file, and the file may name a patient.
    """
    try:
        yield
    except (DicomError, MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - a panic of a decoder in Rust is no Exception
        name = type(error).__name__
        raise DicomError(reason, f"expected {expected}, met {name}", exception=name) from None


@contextmanager
def quiet() -> Iterator[None]:
    """Silence pydicom's warnings: they may quote values of the header."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
