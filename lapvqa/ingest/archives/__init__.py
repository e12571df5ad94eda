"""Layouts of archives, one small file each, behind one protocol (``contract.Archive``).

    ``mimic``         MIMIC-CXR; ``mimic_jpg`` MIMIC-CXR-JPG; ``mimic_tables`` the tables of both
    ``openi``         Open-i; ``openi_report`` its XML
    ``tree``          any other tree of DICOM files
    ``report_files``  reports, ``loose`` or packed (``zipped``, ``tarred``); ``csvs`` tables
    ``files``         which files are images; ``unknown`` the error if none are

A new layout: a module with a class that has the protocol's members and a ``pattern`` of its images'
paths, and its name in ``_NAMED``. The named layouts are asked first, in that order; each takes an
archive if it knows most of its image files. DICOM files that no layout knows are a plain tree.
Pictures (PNG, JPEG) count where a layout knows them and there are more of them than DICOM files:
an archive that holds both forms is read as DICOM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lapvqa.ingest.archives.contract import Archive, Ids, Listed, ReportText
from lapvqa.ingest.archives.files import find_images
from lapvqa.ingest.archives.mimic import MimicArchive
from lapvqa.ingest.archives.mimic_jpg import MimicJpgArchive
from lapvqa.ingest.archives.openi import OpenIArchive
from lapvqa.ingest.archives.tree import TreeArchive
from lapvqa.ingest.archives.unknown import unknown_layout

__all__ = ["Archive", "Ids", "Listed", "ReportText", "open_archive", "recognise"]

Named = type[MimicArchive] | type[OpenIArchive]
_NAMED: tuple[Named, ...] = (MimicArchive, MimicJpgArchive, OpenIArchive)


@dataclass(frozen=True)
class _Choice:
    layout: Named | type[TreeArchive]
    images: Sequence[str]


def open_archive(folder: Path, paths: Sequence[str]) -> Archive:
    """Open the archive in ``folder`` whose files are ``paths``, sorted; SourceError if unknown."""
    choice = _choose(folder, paths)
    return choice.layout(folder, paths, choice.images)


def recognise(folder: Path, paths: Sequence[str]) -> str:
    """Return the layout's name without reading any table; SourceError if unknown."""
    return _choose(folder, paths).layout.name


def _choose(folder: Path, paths: Sequence[str]) -> _Choice:
    found = find_images(folder, paths)
    named, known = _named_layout(found.pictures)
    if named is not None and known > len(found.dicom):
        # The others are images too, so that they are rejected by name, not passed over.
        return _Choice(named, sorted([*found.pictures, *found.dicom]))
    if found.dicom:
        return _Choice(_named_layout(found.dicom)[0] or TreeArchive, found.dicom)
    raise unknown_layout(folder, paths)


def _named_layout(images: Sequence[str]) -> tuple[Named | None, int]:
    """Return the layout that knows most of the images, and how many it knows."""
    for layout in _NAMED:
        known = sum(layout.pattern.search(path) is not None for path in images)
        if 2 * known > len(images):
            return layout, known
    return None, 0
