"""Which files of an archive are images, by their names; opened only where the name does not say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".dic", ".ima"})
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
_PREAMBLE = 128


@dataclass(frozen=True)
class ImageFiles:
    """The image files of an archive in order of path.

    ``pictures`` carry no identifiers: they are images only where a layout knows their names.
    """

    dicom: Sequence[str]
    pictures: Sequence[str]


def find_images(folder: Path, paths: Sequence[str]) -> ImageFiles:
    """Sort out the image files among ``paths``, which are relative to ``folder``."""
    dicom: list[str] = []
    pictures: list[str] = []
    for path in paths:
        suffix = suffix_of(path)
        if suffix in DICOM_SUFFIXES:
            dicom.append(path)
        elif suffix in PICTURE_SUFFIXES:
            pictures.append(path)
        # Exports often name files IM0001 or by a UID, whose last part looks like a suffix.
        elif (not suffix or suffix[1:].isdigit()) and _has_preamble(folder / path):
            dicom.append(path)
    return ImageFiles(dicom, pictures)


def suffix_of(path: str) -> str:
    """Return the suffix in small letters with its point, empty if there is none."""
    stem, point, suffix = path[path.rfind("/") + 1 :].rpartition(".")
    return point + suffix.lower() if stem else ""


def _has_preamble(path: Path) -> bool:
    try:
        with path.open("rb") as handle:
            return handle.read(_PREAMBLE + 4)[_PREAMBLE:] == b"DICM"
    except OSError:
        return False
