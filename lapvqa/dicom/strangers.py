"""What a file is that is no DICOM file, PNG or JPEG, by its first bytes: for the words of an error.

Only the kind is told, never anything that stands in the file.
"""

from __future__ import annotations

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
DICOM = "a DICOM file"

_PREAMBLE = 128
_HEAD = 512
_BEGINS = {
    "a TIFF: convert it to PNG": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "a GIF: convert it to PNG": (b"GIF8",),
    "a BMP: convert it to PNG": (b"BM",),
    "JPEG 2000 outside of DICOM: convert it to PNG": (
        b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51",
    ),
    "a PDF": (b"%PDF",),
    "a zip": (b"PK\x03\x04", b"PK\x05\x06"),
    "a gzip": (b"\x1f\x8b",),
    "a program": (b"\x7fELF", b"MZ"),
}  # fmt: skip
_WEB = (b"<!doctype html", b"<html", b"<head", b"<body")


def describe(data: bytes) -> str:
    """Return what the file is, as in "found a web page"."""
    head = data[:_HEAD]
    if not head:
        return "an empty file"
    if head[_PREAMBLE : _PREAMBLE + 4] == b"DICM":
        return DICOM
    if head.startswith((PNG, JPEG)):
        return "a PNG" if head.startswith(PNG) else "a JPEG"
    if b"IHDR" in head[8:16]:
        return "a PNG whose first 8 bytes, its signature, are damaged"
    if b"JFIF\0" in head[:16] or b"Exif\0" in head[:16]:
        return "a JPEG whose first bytes are damaged"
    for name, beginnings in _BEGINS.items():
        if head.startswith(beginnings):
            return name
    if not head.strip(b"\0"):
        return "nothing but zeros"
    if b"\0" in head:
        return "bytes of no kind that is known"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(_WEB) or b"<html" in text:
        return "a web page: perhaps what a server said instead of sending the file (log in first?)"
    if text.startswith(b"<?xml"):
        return "XML"
    if text.startswith((b"{", b"[")):
        return "JSON"
    return "text" if _is_text(head) else "bytes of no kind that is known"


def _is_text(head: bytes) -> bool:
    """Tell whether hardly any byte is a control character."""
    controls = sum(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in head)
    return controls * 50 <= len(head)
