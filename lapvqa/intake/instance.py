"""What a DICOM object says of itself: enough to file it, and nothing that is written down raw."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from io import BytesIO

from pydicom import Dataset, dcmread
from pydicom import uid as uids
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag

from lapvqa.dicom.pixels import DECODERS
from lapvqa.dicom.reasons import Reason, as_reason, quiet
from lapvqa.errors import DicomError

_READ: list[BaseTag | int] = [
    Tag(name)
    for name in (
        "SOPClassUID", "SOPInstanceUID", "AccessionNumber", "StudyInstanceUID",
        "NumberOfStudyRelatedInstances",
    )
]  # fmt: skip
_LAST = Tag("NumberOfStudyRelatedInstances")
_PREAMBLE = 128
_MAX_INFLATED = 16 << 20
"""A deflated header is inflated so far: no object may ask for all memory."""
_LOSSY = frozenset(
    {
        uids.JPEGBaseline8Bit, uids.JPEGExtended12Bit, uids.JPEGLSNearLossless, uids.JPEG2000,
        uids.HTJ2K,
    }
)  # fmt: skip


@dataclass(frozen=True)
class Names:
    """The identifiers of an object, and how its pixels are written."""

    study_uid: str
    instance_uid: str
    accession: str
    """Empty if it has none."""
    of_study: int
    """Number of Study Related Instances (0020,1208); 0 if it does not say."""
    syntax: str

    @property
    def may_be_lossy(self) -> bool:
        """Whether the transfer syntax may have cost pixels their values."""
        return self.syntax in _LOSSY


def read_names(data: bytes, syntax: str | None = None) -> Names:
    """Return the names in a file's bytes, or in those of a bare data set in ``syntax``.

    Raises DicomError if it is no DICOM object, or names no study or no instance.
    """
    with quiet(), as_reason(Reason.BAD_HEADER, "a DICOM object"):
        start = 0
        if syntax is None:
            syntax, start = _file_meta(data)
        dataset = _header(data, start, syntax) if syntax else _guessed(data)
        names = Names(
            _text(dataset, "StudyInstanceUID"),
            _text(dataset, "SOPInstanceUID"),
            _text(dataset, "AccessionNumber"),
            _number(_text(dataset, "NumberOfStudyRelatedInstances")),
            syntax,
        )
    if not names.study_uid or not names.instance_uid:
        raise DicomError(
            Reason.BAD_HEADER, "expected a Study and a SOP Instance UID, found none of one"
        )
    return names


def _file_meta(data: bytes) -> tuple[str, int]:
    """Return the transfer syntax and where the data set begins; empty where no file meta is."""
    if data[_PREAMBLE : _PREAMBLE + 4] != b"DICM":
        return "", 0
    stream = BytesIO(data)
    stream.seek(_PREAMBLE + 4)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    return str(meta.get("TransferSyntaxUID") or ""), stream.tell()


def _header(data: bytes, start: int, syntax: str) -> Dataset:
    uid = uids.UID(syntax)
    if uid == uids.DeflatedExplicitVRLittleEndian:
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[start:], _MAX_INFLATED)
        start = 0
    stream = BytesIO(data)
    stream.seek(start)
    implicit = uid == uids.ImplicitVRLittleEndian
    little = uid in DECODERS or uid.is_private or uid.is_little_endian
    return read_dataset(
        stream, implicit, little, stop_when=lambda tag, vr, length: tag > _LAST, specific_tags=_READ
    )


def _guessed(data: bytes) -> Dataset:
    return dcmread(BytesIO(data), stop_before_pixels=True, force=True, specific_tags=_READ)


def _text(dataset: Dataset, name: str) -> str:
    value = dataset.get(name)
    return "" if value is None else str(value).strip().strip("\0").strip()


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 7 else 0
