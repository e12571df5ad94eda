"""The tables of MIMIC-CXR and MIMIC-CXR-JPG, by name, plain or gzipped, anywhere in the archive.

They keep 2.0.0 in their names in release 2.1.0. Columns are read by name: their order differs
between the tables. Of two copies the first by path counts.

Not read: mimic-cxr-2.1.0-test-set-labeled.csv. One radiologist's labels of some test studies,
put among the thousands that a program gave, could no longer be told from them; they are for
judging labels, not for making them.
"""

from __future__ import annotations

import gzip
import posixpath
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from lapvqa.dicom.header import clean_view, view_of_meaning
from lapvqa.errors import SourceError, SplitLeakError
from lapvqa.ingest.archives import csvs
from lapvqa.schemas import CHEXPERT_LABELS

_TABLE = re.compile(
    r"(?:mimic-cxr-[\d.]+-(metadata|split|chexpert|negbio)|cxr-(record|study)-list)\.csv(?:\.gz)?"
    r"|(IMAGE_FILENAMES)(?:\.txt)?(?:\.gz)?"
)
_SPLITS = {"train", "validate", "test"}

View = tuple[str | None, str | None, str | None]
"""View, date and time of an image; None where the table says nothing."""


def find_tables(paths: Sequence[str]) -> dict[str, str]:
    """Return the tables' paths by what they hold: metadata, split, record, IMAGE_FILENAMES..."""
    found: dict[str, str] = {}
    for path in paths:
        if path.endswith((".csv", ".gz", "IMAGE_FILENAMES", "IMAGE_FILENAMES.txt")):
            match = _TABLE.fullmatch(posixpath.basename(path))
            if match:
                found.setdefault(next(name for name in match.groups() if name), path)
    return found


def read_metadata(table: Path | None) -> dict[str, View]:
    """Return what the metadata table says, by dicom_id."""
    rows = csvs.rows(
        table,
        ("dicom_id", "ViewPosition", "StudyDate", "StudyTime"),
        ("ViewCodeSequence_CodeMeaning",),
    )
    return {
        image: (
            clean_view(position) or view_of_meaning(meaning) or None,
            date or None,
            _padded_time(time),
        )
        for image, position, date, time, meaning in rows
    }


def read_split(table: Path | None) -> tuple[dict[str, str], dict[str, str]]:
    """Return the split by dicom_id and by subject_id; raises SourceError, SplitLeakError."""
    images: dict[str, str] = {}
    patients: dict[str, str] = {}
    leaks: set[str] = set()
    for image, patient, split in csvs.rows(table, ("dicom_id", "subject_id", "split")):
        if split not in _SPLITS:
            raise SourceError(
                f"expected train, validate or test in the split table, found {split[:16]!r}",
                hint="use MIMIC-CXR-JPG's own mimic-cxr-2.0.0-split.csv.gz",
            )
        images[image] = split
        if patients.setdefault(patient, split) != split:
            leaks.add(patient)
    if leaks:
        raise SplitLeakError(
            f"the split table puts {len(leaks)} patients into more than one split",
            hint="use MIMIC-CXR-JPG's own mimic-cxr-2.0.0-split.csv.gz, or remove the table",
        )
    return images, patients


def read_labels(table: Path | None) -> Iterator[tuple[str, list[int | None]]]:
    """Yield study_id and labels: 1, 0, -1 as in the table, None where it is blank."""
    for study, *values in csvs.rows(table, ("study_id", *CHEXPERT_LABELS)):
        yield study, [int(float(value)) if value else None for value in values]


def count_missing(
    folder: Path, tables: Mapping[str, str], images: Collection[str], studies: Collection[str]
) -> dict[str, int]:
    """Return for each list of the archive, by its path, how many of its entries are not there.

    ``images`` are the dicom_ids of the image files, ``studies`` the study_ids of the reports.
    """
    listed: dict[str, tuple[Sequence[str], Collection[str]]] = {}
    if path := tables.get("record"):
        listed[path] = csvs.columns(folder / path, ("dicom_id",))[0], images
    if path := tables.get("study"):
        listed[path] = csvs.columns(folder / path, ("study_id",))[0], studies
    if path := tables.get("IMAGE_FILENAMES"):
        listed[path] = _stems(folder / path), images
    return {path: len(set(entries).difference(there)) for path, (entries, there) in listed.items()}


def _padded_time(text: str) -> str | None:
    # hhmmss.fff as a number has lost its leading zeros: 80556.875 is 08:05:56.875.
    whole, point, fraction = text.partition(".")
    return whole.zfill(6) + point + fraction if whole else None


def _stems(names: Path) -> list[str]:
    """Return the names, without folder and suffix, of the files listed one a line."""
    try:
        with gzip.open(names) if names.suffix == ".gz" else names.open("rb") as handle:
            lines = handle.read().decode("ascii", "replace").split()
    except (OSError, EOFError) as error:
        raise SourceError(
            f"expected a list of files in {names.name}, could not read it ({type(error).__name__})",
            hint=f"fetch {names.name} again from its publisher, or remove it",
        ) from None
    return [line[line.rfind("/") + 1 :].partition(".")[0] for line in lines]
