"""The error for a folder that no layout fits: what was looked for, and what is there instead."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lapvqa.errors import SourceError
from lapvqa.ingest.archives.files import PICTURE_SUFFIXES, suffix_of

_LOOKED_FOR = (
    "looked for MIMIC-CXR (files/pNN/pSUBJECT/sSTUDY/*.dcm), MIMIC-CXR-JPG (the same with *.jpg or "
    "*.png), Open-i (CXR1_1_IM-0001-3001.png, 1/1_IM-0001-3001.dcm), and any tree with *.dcm, "
    "*.dicom, *.dic, *.ima, or files without suffix that hold DICOM"
)
_PACKED = (".zip", ".tgz", ".gz", ".tar", ".7z", ".rar")
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
        ".mhd", ".raw", ".npy", ".npz", ".h5", ".parquet", ".zip", ".tgz", ".gz", ".tar", ".7z",
        ".rar", ".txt", ".csv", ".tsv", ".xls", ".xlsx", ".xml", ".json", ".yaml", ".html", ".pdf",
        ".doc", ".docx", ".md", ".py", ".ini", ".db",
    }
)  # fmt: skip
_SHOWN = 4


def unknown_layout(folder: Path, paths: Sequence[str]) -> SourceError:
    """Return the error that says so; names of files and folders stay out of it."""
    suffixes = Counter(map(_kind, paths))
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(_SHOWN))
    shapes = Counter(map(_shape, paths))
    places = ", ".join(f"{count} at {shape}" for shape, count in shapes.most_common(_SHOWN))
    return SourceError(
        f"expected chest radiographs in {folder}, found none that a layout knows among "
        f"{len(paths)} files" + (f" ({kinds}; {places})" if paths else ""),
        hint="; ".join([*_remedies(suffixes), _LOOKED_FOR]),
    )


def _remedies(suffixes: Counter[str]) -> list[str]:
    remedies = []
    packed = [suffix for suffix in _PACKED if suffixes[suffix]]
    if packed:
        remedies.append(
            f"unpack the images ({', '.join(packed)}): only reports are read from packed files"
        )
    if any(suffixes[suffix] for suffix in PICTURE_SUFFIXES):
        remedies.append(
            "pictures name neither study nor patient: they are read where their paths do, "
            "as in MIMIC-CXR-JPG and Open-i"
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
    suffix = suffix_of(path)
    if not suffix:
        return "(no suffix)"
    return suffix if suffix in _KINDS else "(other)"
