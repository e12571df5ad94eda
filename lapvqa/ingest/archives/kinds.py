"""What kind of file lies at a path: by its name where that is known, else by its first bytes.

Names decide first, so that an archive of 377,110 ``.dcm`` files is not opened twice and a viewer's
programs are not opened at all. Every other name says nothing: exports call images ``IM0001``,
``1.2.3.4.CR``, ``scan.img``, ``x.acr`` or by a UID. There the first kilobyte decides.
"""

from __future__ import annotations

import re
import struct

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lapvqa.ingest.archives.names import NO_FILE, is_hidden

DICOM = "dicom"
PICTURE = "picture"
ZIP = "zip"
UNKNOWN = "unknown"
EMPTY = "empty"
FAULT = "fault"
"""A zip, or a file in one, that cannot be read."""
LEFT_OUT = frozenset({"hidden", "hidden folder", "pipe or device"})
"""Kinds that nobody reads, whatever their names."""
HEAD_BYTES = 1024
"""Of a file's beginning, what ``by_content`` asks for."""

_SUFFIXES = {
    DICOM: "dcm dicom dic ima",
    PICTURE: "png jpg jpeg",
    ZIP: "zip",
    "text": "txt text md log rtf nfo readme asc sha256 sha1 md5 sfv",
    "table": "csv tsv xls xlsx ods parquet feather arrow",
    "document": "pdf doc docx odt ppt pptx ps",
    "web page": "html htm xhtml mht css js svg",
    "data": "xml xsl xsd dtd json ndjson jsonl yaml yml hl7 db sqlite npy npz h5 hdf5 pkl pt",
    "viewer": "exe dll jar class inf ini bat cmd com sh ps1 msi cab sys ocx chm hlp so dylib ico "
    "lnk url cfg conf properties manifest config ttf fon lic vbs reg pdb tlb mui py",
    "packed": "tar tgz tbz txz 7z rar bz2 xz zst lz4 iso dmg",
    "other picture": "tif tiff bmp gif webp jp2 j2k jls heic",
    "video or sound": "mp4 avi mov mpg mpeg wmv mkv webm mp3 wav wma ogg",
    "volume": "nii nrrd mha mhd mgz",
}
_BY_SUFFIX = {suffix: kind for kind, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}
_TEXT_NAMES = frozenset(
    {
        "readme", "license", "licence", "copying", "copyright", "changes", "changelog", "version",
        "notice", "authors", "makefile", "md5sums", "sha1sums", "sha256sums",
    }
)  # fmt: skip
_ISO_VERSION = re.compile(r";\d+$")
"""ISO 9660 writes IM3.DCM;1: the file's version stands behind its name."""
_PREAMBLE = 128
_ZIP_HEADS = (b"PK\x03\x04", b"PK\x05\x06")
# A data set without preamble begins with the group length or version of its file meta (group 0002),
# or with the first element of group 0008 (PS3.10 7.1, PS3.5 7.1).
_FIRST_GROUPS = (0x0002, 0x0008)
_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT"})
_SHORT_VRS = frozenset(
    {
        b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN",
        b"SH", b"SL", b"SS", b"ST", b"SV", b"TM", b"UI", b"UL", b"US", b"UV",
    }
)  # fmt: skip
_LONGEST_FIRST, _LONGEST_SECOND = 512, 1 << 16
_UNDEFINED = 0xFFFFFFFF


def by_name(path: str, size: int, mtime_ns: int) -> str:
    """Return the kind that name and listing decide; empty if the content has to."""
    if path.endswith("/"):
        return "hidden folder"
    if mtime_ns == NO_FILE:
        return "pipe or device"
    if is_hidden(path):
        return "hidden"
    suffix = suffix_of(path)
    kind = _BY_SUFFIX.get(suffix[1:], "")
    if not kind and not suffix and path[path.rfind("/") + 1 :].lower() in _TEXT_NAMES:
        kind = "text"
    if not kind and size == 0 and mtime_ns != 0:  # 0 and 0: it could not even be asked
        return EMPTY
    return kind


_PLAIN = r"^(\.\./)?([^./][^/]*/)*[^./;][^./;]*\.[A-Za-z0-9]+$"
"""Paths without hidden parts whose names have one point and no version: their suffix decides."""


def by_names(listed: pa.Table) -> NDArray[np.object_]:
    """Return ``by_name`` of each row of an inventory; of plain names each suffix is asked once."""
    paths = listed["path"].combine_chunks()
    is_plain = pc.and_(
        pc.match_substring_regex(paths, _PLAIN), pc.not_equal(listed["mtime_ns"], NO_FILE)
    )
    suffixes = pc.if_else(is_plain, pc.replace_substring_regex(paths, r"^.*\.", ""), "")
    encoded = suffixes.combine_chunks().dictionary_encode()
    kinds = [by_name(f"x.{suffix}", 1, 1) for suffix in encoded.dictionary.to_pylist()]
    found: NDArray[np.object_] = np.array(kinds, object)[encoded.indices.to_numpy()]
    rest = np.flatnonzero(found == "")
    columns = [column.to_pylist() for column in listed.take(pa.array(rest)).columns]
    for row, path, size, mtime_ns in zip(rest, *columns, strict=True):
        found[row] = by_name(path, size, mtime_ns)
    return found


def suffix_of(path: str) -> str:
    """Return the suffix in small letters with its point, empty if there is none.

    Of a gzipped file that of what is in it, and of IM3.DCM;1 that without the version.
    """
    name = path[path.rfind("/") + 1 :].lower()
    if ";" in name:
        name = _ISO_VERSION.sub("", name)
    name = name.removesuffix(".gz")
    stem, point, suffix = name.rpartition(".")
    return point + suffix if stem else ""


def by_content(head: bytes) -> str:
    """Return the kind of a file that begins with ``head``: DICOM, ZIP or UNKNOWN."""
    if head[_PREAMBLE : _PREAMBLE + 4] == b"DICM":
        return DICOM
    if head.startswith(_ZIP_HEADS):
        return ZIP
    return DICOM if _is_data_set(head) else UNKNOWN


def _is_data_set(head: bytes) -> bool:
    """Tell whether ``head`` begins a bare data set, little endian, explicit or implicit.

    Its first two elements have to follow one another by tag, with lengths that they can have.
    """
    if len(head) < 8 or int.from_bytes(head[:2], "little") not in _FIRST_GROUPS:
        return False
    tag, length, start = _element(head, 0)
    if length > _LONGEST_FIRST or length % 2:
        return False
    place = start + length
    if len(head) < place + 8:
        return len(head) == place
    second, length, _ = _element(head, place)
    plausible = length == _UNDEFINED or (length <= _LONGEST_SECOND and length % 2 == 0)
    return second > tag and plausible


def _element(head: bytes, place: int) -> tuple[int, int, int]:
    """Return the tag, the length and the place of the value of the element at ``place``."""
    group, number, vr, short, long = struct.unpack_from("<HH2sHI", head.ljust(place + 12), place)
    if vr in _SHORT_VRS:
        length, size = short, 8
    elif vr in _LONG_VRS and short == 0:
        length, size = long, 12
    else:
        length, size = int.from_bytes(vr, "little") | short << 16, 8
    return group << 16 | number, length, place + size
