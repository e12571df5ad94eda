"""One image of the archive: what it shows, where it goes, in which form; and taking it."""

from __future__ import annotations

import csv
import gzip
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from lapvqa.synth.encode import Encoding, to_dicom
from lapvqa.synth.layers import Box
from lapvqa.synth.radiograph import Exposure, Radiograph, render

MTIME = 1_700_000_000
"""Modification time of every file: an inventory of the archive must not change on a rebuild."""

HeaderValue = str | tuple[str, ...] | dict[str, str]


@dataclass(frozen=True)
class DicomForm:
    """A DICOM file. ``header``: keyword and value; a dict value becomes a one-item sequence."""

    header: tuple[tuple[str, HeaderValue], ...]
    encoding: Encoding

    def encode(self, radiograph: Radiograph) -> bytes:
        """Return the file's bytes."""
        data = Dataset()
        for keyword, value in self.header:
            if isinstance(value, dict):
                item = Dataset()
                for name, text in value.items():
                    setattr(item, name, text)
                setattr(data, keyword, DicomSequence([item]))
            else:
                setattr(data, keyword, list(value) if isinstance(value, tuple) else value)
        return to_dicom(radiograph.film, data, self.encoding)


@dataclass(frozen=True)
class JpegForm:
    """An 8-bit JPEG of what a viewer shows."""

    quality: int = 90

    def encode(self, radiograph: Radiograph) -> bytes:
        """Return the file's bytes."""
        options = [cv2.IMWRITE_JPEG_QUALITY, self.quality]
        return bytes(cv2.imencode(".jpg", radiograph.film.displayed(), options)[1])


@dataclass(frozen=True)
class PngForm:
    """An 8-bit PNG of what a viewer shows; grey, or RGBA as some of NIH's are."""

    rgba: bool = False

    def encode(self, radiograph: Radiograph) -> bytes:
        """Return the file's bytes."""
        grey = radiograph.film.displayed()
        pixels = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGRA) if self.rgba else grey
        return bytes(cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1])


@dataclass(frozen=True)
class Shot:
    """One image to take; ``path`` is relative to the demo's root."""

    path: str
    exposure: Exposure
    form: DicomForm | JpegForm | PngForm


@dataclass(frozen=True)
class TakenImage:
    """A shot that was taken: its size, and its findings' boxes in native pixels (xyxy)."""

    path: str
    rows: int
    cols: int
    boxes: tuple[tuple[Box, ...], ...]


def take(root: Path, shot: Shot) -> TakenImage:
    """Render one image and write it."""
    radiograph = render(shot.exposure)
    write(root / shot.path, shot.form.encode(radiograph))
    rows, cols = radiograph.film.values.shape
    return TakenImage(shot.path, rows, cols, radiograph.boxes)


def write(path: Path, content: bytes) -> None:
    """Write a file of the archive with the archive's fixed modification time.

    Not atomic on its own: the manifest, written last, is what says that an archive is whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (MTIME, MTIME))


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a comma-separated table, gzipped if the name says so; None becomes blank."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([["" if cell is None else cell for cell in row] for row in rows])
    content = text.getvalue().encode()
    # A time stamp in the gzip header would make every build differ.
    write(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def pick(rng: np.random.Generator, values: Sequence[float]) -> float:
    """Return one of the values."""
    return float(values[int(rng.integers(len(values)))])
