"""Reports that are files of their own: their bytes, what they say, and when they have changed."""

from __future__ import annotations

import codecs
import hashlib
from pathlib import Path

from lapvqa.dicom.reasons import Reason
from lapvqa.errors import DicomError
from lapvqa.ingest.archives.contract import ReportText

MAX_REPORT_BYTES = 1 << 20
"""The longest reports have some ten thousand characters; what is larger is another kind of file."""
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def decode(data: bytes) -> ReportText:
    """Read UTF-8 with or without its mark, UTF-16 with it, else Windows-1252.

    Raises DicomError BAD_REPORT for bytes that are no text.
    """
    sha256 = hashlib.sha256(data).hexdigest()
    is_utf8 = True
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        is_utf8 = False
        encoding = "utf-16" if data.startswith(_UTF16_MARKS) else "cp1252"
        text = data.decode(encoding, errors="replace")
    if "\0" in text:
        raise DicomError(Reason.BAD_REPORT, "expected a text, found a file of another kind")
    return ReportText(text, sha256, is_utf8)


def read(path: Path) -> bytes:
    """Return a report file's bytes; raises DicomError UNREADABLE or BAD_REPORT."""
    try:
        with path.open("rb") as handle:
            data = handle.read(MAX_REPORT_BYTES + 1)
    except OSError as error:
        raise DicomError(
            Reason.UNREADABLE,
            f"expected a readable report: {error.strerror}",
            exception=type(error).__name__,
        ) from None
    require_size(len(data))
    return data


def require_size(size: int) -> None:
    """Raise DicomError BAD_REPORT if so many bytes can be no report."""
    if size > MAX_REPORT_BYTES:
        raise DicomError(
            Reason.BAD_REPORT, f"expected at most {MAX_REPORT_BYTES} bytes, found more"
        )


def stamp(path: Path) -> tuple[int, int]:
    """Return size and modification time in ns; raises OSError."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns
