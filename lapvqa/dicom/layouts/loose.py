"""Reports that are plain text: what they say, and when they have changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lapvqa.dicom.layouts.contract import ReportText
from lapvqa.dicom.reasons import Reason
from lapvqa.errors import DicomError


def decode(data: bytes) -> ReportText:
    """Read UTF-8, with or without its mark, else Windows-1252, which old systems write."""
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        return ReportText(data.decode("utf-8-sig"), sha256)
    except UnicodeDecodeError:
        return ReportText(data.decode("cp1252", errors="replace"), sha256, is_utf8=False)


def read(path: Path) -> bytes:
    """Return a report file's bytes; raises DicomError UNREADABLE."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DicomError(
            Reason.UNREADABLE,
            f"expected a readable report: {error.strerror}",
            exception=type(error).__name__,
        ) from None


def stamp(path: Path) -> tuple[int, int]:
    """Return size and modification time in ns; raises OSError."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns
