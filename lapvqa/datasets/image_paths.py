"""Which of a dataset's files are its images: users rename, convert and move them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

_SUFFIXES = (".dicom", ".dcm", ".png", ".jpg", ".jpeg")
"""From the least to the most that a conversion has lost."""


def image_files(files: Iterable[str], *, published: str) -> list[PurePosixPath]:
    """Return the image files; of an image in several forms the one to take comes first.

    ``published``: the suffix that the dataset is given out with: the original goes before copies.
    """
    ranks = {suffix: rank for rank, suffix in enumerate(_SUFFIXES)} | {published: -1}
    paths = [PurePosixPath(file) for file in files]
    images = [path for path in paths if path.suffix.lower() in ranks]
    return sorted(images, key=lambda path: (ranks[path.suffix.lower()], str(path)))
