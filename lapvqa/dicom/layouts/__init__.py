"""Layouts of archives, one small file each, behind one protocol (``contract.Archive``).

A new layout: a module with a class that has the protocol's members, and a line in
``open_archive``. MIMIC-CXR is asked first; everything else is a plain tree.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lapvqa.dicom.layouts import mimic
from lapvqa.dicom.layouts.contract import Archive, Ids, Listed, ReportText
from lapvqa.dicom.layouts.mimic import MimicArchive
from lapvqa.dicom.layouts.tree import TreeArchive
from lapvqa.errors import SourceError

__all__ = ["Archive", "Ids", "Listed", "ReportText", "open_archive", "recognise"]

DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".dic", ".ima"})
_PREAMBLE = 128


def open_archive(folder: Path, paths: Sequence[str]) -> Archive:
    """Open the archive in ``folder`` whose files are ``paths``; SourceError if unknown."""
    images = _image_files(folder, paths)
    if not images:
        raise _unknown(folder, paths)
    if mimic.recognises(images):
        return MimicArchive(folder, paths, images)
    return TreeArchive(folder, paths, images)


def recognise(folder: Path, paths: Sequence[str]) -> str:
    """Return the layout's name without reading any table; SourceError if unknown."""
    images = _image_files(folder, paths)
    if not images:
        raise _unknown(folder, paths)
    return MimicArchive.name if mimic.recognises(images) else TreeArchive.name


def _image_files(folder: Path, paths: Sequence[str]) -> list[str]:
    return [path for path in paths if _is_image_file(folder, path)]


def _is_image_file(folder: Path, path: str) -> bool:
    suffix = posixpath.splitext(path)[1].lower()
    if suffix in DICOM_SUFFIXES:
        return True
    # Exports often name files IM0001 or by a UID, whose last part looks like a suffix.
    if suffix and not suffix[1:].isdigit():
        return False
    try:
        with (folder / path).open("rb") as handle:
            return handle.read(_PREAMBLE + 4)[_PREAMBLE:] == b"DICM"
    except OSError:
        return False


def _unknown(folder: Path, paths: Sequence[str]) -> SourceError:
    suffixes = Counter(posixpath.splitext(path)[1].lower() or "(no suffix)" for path in paths)
    found = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(4))
    return SourceError(
        f"expected DICOM images in {folder}, found none among {len(paths)} files"
        + (f" ({found})" if found else ""),
        hint="looked for MIMIC-CXR (files/pNN/pSUBJECT/sSTUDY/*.dcm) and for any tree with "
        "*.dcm, *.dicom, *.dic, *.ima, or files without suffix that hold DICOM; "
        "JPEG and PNG archives are not read",
    )
