"""MIMIC-CXR 2.0.0 / 2.1.0: files/pNN/pSUBJECT/sSTUDY/DICOMID.dcm, reports beside the study folder.

The tables are MIMIC-CXR-JPG's: mimic-cxr-2.0.0-{metadata,split,chexpert}.csv, plain or gzipped,
anywhere in the archive (they keep 2.0.0 in their names in release 2.1.0). Columns are read by
name: their order differs between the tables. Any outer nesting (physionet.org/files/...) is fine.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from lapvqa.dicom.layouts import loose
from lapvqa.dicom.layouts.contract import Ids, Listed, ReportText
from lapvqa.errors import SourceError, SplitLeakError
from lapvqa.schemas import CHEXPERT_LABELS

_IMAGE = re.compile(r"(?:^|/)p\d\d/p(\d{8})/s(\d{8})/([^/]+)\.(?:dcm|dicom)$", re.IGNORECASE)
_REPORT = re.compile(r"(?:^|/)p\d\d/p(\d{8})/s(\d{8})\.txt$")
_SPLITS = {"train", "validate", "test"}


class MimicArchive:
    """An archive in MIMIC-CXR's layout; ids come from the paths, not from the headers."""

    name = "mimic-cxr"
    looked_for = "files/pNN/pSUBJECT/sSTUDY.txt beside the folder of each study"

    def __init__(self, folder: Path, paths: Sequence[str], images: Sequence[str]) -> None:
        self._folder = folder
        self.images = images
        self._report_of_study: dict[tuple[str, str], str] = {}
        self.reports: Sequence[str] = [path for path in paths if _REPORT.search(path)]
        for path in reversed(self.reports):  # of two copies, the first by path wins
            patient, study = _groups(_REPORT, path)
            self._report_of_study[patient, study] = path
        self._tables = {
            name: _find_table(folder, paths, name) for name in ("metadata", "split", "chexpert")
        }
        self.has_split = self._tables["split"] is not None
        self._split_of_image, self._split_of_patient = self._read_split()
        self._metadata = self._read_metadata()

    def ids(self, path: str) -> Ids | None:
        """Return dicom_id, study_id and subject_id."""
        if _IMAGE.search(path) is None:
            return None
        patient, study, image = _groups(_IMAGE, path)
        return Ids(image, study, patient)

    def listed(self, path: str) -> Listed:
        """Return view, date and time of the metadata table, and the official split."""
        patient, _, image = _groups(_IMAGE, path)
        view, date, time = self._metadata.get(image, (None, None, None))
        split = self._split_of_image.get(image) or self._split_of_patient.get(patient)
        return Listed(view, date, time, split)

    def match_reports(
        self, studies: Mapping[str, Sequence[str]], copies: Mapping[str, Sequence[str]]
    ) -> dict[str, str]:
        """Match by subject and study number."""
        matches = {}
        for study, images in studies.items():
            patient, number, _ = _groups(_IMAGE, images[0])
            report = self._report_of_study.get((patient, number))
            if report is not None:
                matches[study] = report
        return matches

    def report_stamp(self, path: str) -> tuple[int, int]:
        """Return size and modification time."""
        return loose.stamp(self._folder / path)

    def read_report(self, path: str) -> ReportText:
        """Read a text file."""
        return loose.decode(loose.read(self._folder / path))

    def labels(self) -> Iterator[tuple[str, list[int | None]]]:
        """Yield study_id and labels: 1, 0, -1 as in the table, None where it is blank."""
        for study, *values in _rows(self._tables["chexpert"], ("study_id", *CHEXPERT_LABELS)):
            yield study, [int(float(value)) if value else None for value in values]

    def _read_metadata(self) -> dict[str, tuple[str | None, str | None, str | None]]:
        columns = ("dicom_id", "ViewPosition", "StudyDate", "StudyTime")
        return {
            image: (view or None, date or None, _padded_time(time))
            for image, view, date, time in _rows(self._tables["metadata"], columns)
        }

    def _read_split(self) -> tuple[dict[str, str], dict[str, str]]:
        images: dict[str, str] = {}
        patients: dict[str, str] = {}
        leaks: set[str] = set()
        for image, patient, split in _rows(
            self._tables["split"], ("dicom_id", "subject_id", "split")
        ):
            if split not in _SPLITS:
                raise SourceError(
                    f"the split table names a split {split!r}; known: {sorted(_SPLITS)}",
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


def recognises(images: Sequence[str]) -> bool:
    """Say whether most of the image files lie as MIMIC-CXR lays them out."""
    return 2 * sum(_IMAGE.search(path) is not None for path in images) > len(images)


def _groups(pattern: re.Pattern[str], path: str) -> tuple[str, ...]:
    match = pattern.search(path)
    if match is None:
        raise ValueError("the path lies outside the layout")
    return match.groups()


def _padded_time(text: str) -> str | None:
    # hhmmss.fff as a number has lost its leading zeros: 80556.875 is 08:05:56.875.
    whole, point, fraction = text.partition(".")
    return whole.zfill(6) + point + fraction if whole else None


def _find_table(folder: Path, paths: Sequence[str], name: str) -> Path | None:
    pattern = re.compile(rf"mimic-cxr-[\d.]+-{name}\.csv(\.gz)?$")
    found = sorted(path for path in paths if pattern.fullmatch(posixpath.basename(path)))
    return folder / found[0] if found else None


def _rows(table: Path | None, columns: Sequence[str]) -> Iterable[tuple[str, ...]]:
    """Return the named columns of a csv or csv.gz as text, row by row; nothing if it is absent."""
    if table is None:
        return ()
    import pyarrow as pa
    from pyarrow import csv

    try:
        read = csv.read_csv(
            table,
            convert_options=csv.ConvertOptions(
                include_columns=list(columns),
                column_types=dict.fromkeys(columns, pa.string()),
                strings_can_be_null=False,
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
        raise SourceError(
            f"expected columns {', '.join(columns[:4])}... in {table.name}, could not read them "
            f"({type(error).__name__})",
            hint=f"fetch {table.name} again from its publisher",
        ) from None
    return zip(*(column.to_pylist() for column in read.columns), strict=True)
