"""Which layout an archive has, and the error that explains why none fits.

The named layouts are asked first, in the order of ``NAMED``; each takes an archive if it knows
most of its image files. DICOM files that no layout knows are a plain tree. Pictures (PNG, JPEG)
count where a layout knows them and there are more of them than DICOM files: an archive that holds
both forms is read as DICOM.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from lapvqa.errors import SourceError
from lapvqa.ingest.archives.found import Files, find_files
from lapvqa.ingest.archives.kinds import PICTURE, by_name, suffix_of
from lapvqa.ingest.archives.mimic import MimicArchive, MimicJpgArchive
from lapvqa.ingest.archives.openi import OpenIArchive
from lapvqa.ingest.archives.protocol import Archive
from lapvqa.ingest.archives.report_index import ReportIndex
from lapvqa.ingest.archives.tree import TreeArchive
from lapvqa.ingest.columns import matching
from lapvqa.machine import ReportSources
from lapvqa.recorder import counted


class _Named(Protocol):
    """A class that opens archives of its layout; ``pattern`` finds the paths of its images."""

    name: str
    pattern: re.Pattern[str]

    def __call__(self, folder: Path, paths: Sequence[str], images: Sequence[str]) -> Archive: ...


NAMED: tuple[_Named, ...] = (MimicArchive, MimicJpgArchive, OpenIArchive)

_LOOKED_FOR = (
    "looked for MIMIC-CXR (files/pNN/pSUBJECT/sSTUDY/*.dcm), MIMIC-CXR-JPG (the same with *.jpg or "
    "*.png), Open-i (CXR1_1_IM-0001-3001.png, 1/1_IM-0001-3001.dcm), "
    "and any tree with DICOM files, whatever their names, also gzipped or in zips"
)
_PACKED = (".tgz", ".tar.gz", ".tar", ".7z", ".rar")
# Of names, only what these lists know is shown: any other part of one could be a patient's.
_SHAPES = (
    (re.compile(r"files|images|train|valid|test|physionet\.org|mimic-cxr(-jpg)?|NLMCXR_\w+"), None),
    (re.compile(r"p\d\d"), "pNN"),
    (re.compile(r"p\d{8}"), "pSUBJECT"),
    (re.compile(r"s\d{8}"), "sSTUDY"),
)
_KINDS = frozenset(
    {
        ".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".nii", ".nrrd", ".mha",
        ".mhd", ".raw", ".npy", ".npz", ".h5", ".parquet", ".zip", ".tgz", ".tar.gz", ".tar",
        ".7z", ".rar", ".txt", ".csv", ".tsv", ".xls", ".xlsx", ".xml", ".json", ".yaml", ".html",
        ".pdf", ".doc", ".docx", ".md", ".py", ".ini", ".db",
    }
)  # fmt: skip
_SHOWN = 4


@dataclass(frozen=True)
class _Choice:
    layout: _Named | None
    """None: a plain tree."""
    images: Sequence[str]


def open_archive(
    folder: Path,
    files: Files | Sequence[str],
    reports: ReportSources | None = None,
    index: Callable[[Files], ReportIndex] | None = None,
) -> Archive:
    """Open the archive in ``folder``; SourceError if unknown.

    Its files are given as ``find_files`` sorted them out, or as paths, to be sorted out now.
    ``reports`` says where those of a plain tree are, and ``index`` what is known of them; other
    layouts know that themselves.
    """
    found = _found(folder, files)
    choice = _choose(folder, found)
    if choice.layout is None:
        known = None if index is None else index(found)
        return TreeArchive(folder, found.paths, choice.images, reports, known)
    return choice.layout(folder, found.paths, choice.images)


def recognise(folder: Path, files: Files | Sequence[str]) -> str:
    """Return the layout's name without reading any table; SourceError if unknown."""
    return (_choose(folder, _found(folder, files)).layout or TreeArchive).name


def _found(folder: Path, files: Files | Sequence[str]) -> Files:
    return (
        files if isinstance(files, Files) else find_files(folder, [(path, 0, 0) for path in files])
    )


def _choose(folder: Path, files: Files) -> _Choice:
    named, known = _named_layout(files.pictures)
    if named is not None and known > len(files.dicom):
        # The others are images too, so that they are rejected by name, not passed over.
        return _Choice(named, sorted([*files.pictures, *files.dicom]))
    if files.dicom:
        return _Choice(_named_layout(files.dicom)[0], files.dicom)
    raise _unknown_layout(folder, files)


def _named_layout(images: Sequence[str]) -> tuple[_Named | None, int]:
    """Return the layout that knows most of the images, and how many it knows."""
    paths = pa.array(images, pa.string())
    for layout in NAMED:
        known = len(matching(paths, layout.pattern))
        if 2 * known > len(images):
            return layout, known
    return None, 0


def is_picture(path: str) -> bool:
    """Say whether a file is read as PNG or JPEG, by its name."""
    return by_name(path, 1, 0) == PICTURE


def _unknown_layout(folder: Path, files: Files) -> SourceError:
    """Return the error for an unknown layout; it quotes no name of a file or folder."""
    paths = [*files.facts]
    suffixes = Counter(map(_kind, paths))
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(_SHOWN))
    shapes = Counter(map(_shape, paths))
    places = ", ".join(f"{count} at {shape}" for shape, count in shapes.most_common(_SHOWN))
    return SourceError(
        f"expected chest radiographs in {folder}, found none that a layout knows among "
        f"{counted(len(paths), 'file')}" + (f" ({kinds}; {places})" if paths else ""),
        hint="; ".join([*_remedies(files, suffixes), _LOOKED_FOR]),
    )


def _remedies(files: Files, suffixes: Counter[str]) -> list[str]:
    remedies = []
    if not files.facts:
        remedies.append("the folder is empty: copy the archive into it, or name another place")
    if files.faults:
        fault = next(iter(files.faults.values()))
        remedies.append(f"{len(files.faults)} zips or members of them cannot be read ({fault})")
    packed = [suffix for suffix in _PACKED if suffixes[suffix]]
    if packed:
        remedies.append(
            f"unpack the images ({', '.join(packed)}): of packed files only zip and gzip are read"
        )
    if files.pictures:
        remedies.append(
            "pictures name neither study nor patient: they are read where their paths do, "
            "as in MIMIC-CXR-JPG and Open-i; `lapvqa embed` takes them as they are"
        )
    return remedies


def _shape(path: str) -> str:
    folders = path.split("/")[:-1]
    return "/".join([*map(_shown, folders), "*"])


def _shown(folder: str) -> str:
    for pattern, shape in _SHAPES:
        if pattern.fullmatch(folder):
            return shape or folder
    return folder if folder == ".." else "*"


def _kind(path: str) -> str:
    lower = path.lower()
    suffix = next((known for known in _PACKED if lower.endswith(known)), suffix_of(path))
    if not suffix:
        return "(no suffix)"
    return suffix if suffix in _KINDS else "(other)"
