"""MIMIC-CXR and MIMIC-CXR-JPG 2.0.0 / 2.1.0, and the tables of both.

MIMIC-CXR: files/pNN/pSUBJECT/sSTUDY/DICOMID.dcm, reports beside the study folder or left in
mimic-cxr-reports.zip. Any outer nesting (physionet.org/files/mimic-cxr/2.0.0/...) is fine, and so
is a part of the archive.

MIMIC-CXR-JPG: the same paths with .jpg, or .png in resized copies. The release holds no reports:
those of MIMIC-CXR have to be added, zipped or loose. Its makers windowed and histogram-equalised
the pictures, so their greys are not those of the DICOM files.

Tables are found by name, plain or gzipped, anywhere in the archive; they keep 2.0.0 in their names
in release 2.1.0. Columns are read by name: their order differs between the tables. Of two copies
the first by path counts. Without the split table the patients are split by share.

Not read: mimic-cxr-2.1.0-test-set-labeled.csv. One radiologist's labels of some test studies could
not be told from the thousands that a program gave; they are for judging labels, not making them.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path

from lapvqa.dicom.views import clean_view, view_of_meaning
from lapvqa.errors import DicomError, SourceError, SplitLeakError
from lapvqa.identity import Ids
from lapvqa.ingest.archives.members import read_at
from lapvqa.ingest.archives.names import place
from lapvqa.ingest.archives.protocol import KnownStudies, Listed, Matches, ReportMatch, ReportText
from lapvqa.ingest.archives.report_files import ReportFiles, decode_report
from lapvqa.schemas import CHEXPERT_LABELS

_REPORT = re.compile(r"(?:^|/)p\d\d/p(\d{8})/s(\d{8})\.txt$")
_PACKED_REPORTS = ("mimic-cxr-reports.zip",)
_TABLE = re.compile(
    r"(?:mimic-cxr-[\d.]+-(metadata|split|chexpert|negbio)|cxr-(record|study)-list)\.csv(?:\.gz)?"
    r"|(IMAGE_FILENAMES)(?:\.txt)?(?:\.gz)?"
)
_MAX_TABLE_BYTES = 1 << 30
_SPLITS = {"train", "validate", "test"}

_View = tuple[str | None, str | None, str | None]
"""View, date and time of an image; None where the table says nothing."""


class MimicArchive:
    """An archive in MIMIC-CXR's layout; ids come from the paths, not from the headers."""

    name = "mimic-cxr"
    looked_for = (
        "files/pNN/pSUBJECT/sSTUDY.txt beside the folder of each study, and for "
        "mimic-cxr-reports.zip (a file of MIMIC-CXR) in the source folder or next to it"
    )
    pattern = re.compile(
        r"(?:^|/)p\d\d/p(\d{8})/s(\d{8})/([^/]+)\.(?:dcm|dicom)(?:\.gz)?$", re.IGNORECASE
    )

    def __init__(self, folder: Path, paths: Sequence[str], images: Sequence[str]) -> None:
        self.images = images
        self._reports = ReportFiles(folder, paths, _REPORT, _PACKED_REPORTS)
        self.reports: Sequence[str] = self._reports.paths
        tables = _find_tables(paths)
        self.tables: Sequence[str] = sorted([*tables.values(), *self._reports.packed])
        files = {name: place(folder, path) for name, path in tables.items()}
        self.has_split = "split" in files
        self._split_of_image, self._split_of_patient = _read_split(files.get("split"))
        self._metadata = _read_metadata(files.get("metadata"))
        self._labels = files.get("chexpert") or files.get("negbio")
        dicom_ids = {match[3] for match in map(self.pattern.search, images) if match}
        study_ids = {study for _, study in self._reports.groups}
        self.missing: Mapping[str, int] = _count_missing(folder, tables, dicom_ids, study_ids)

    def ids(self, path: str) -> Ids | None:
        """Return dicom_id, study_id and subject_id."""
        match = self.pattern.search(path)
        return Ids(match[3], match[2], match[1]) if match else None

    def listed(self, path: str) -> Listed:
        """Return view, date and time of the metadata table, and the official split."""
        match = self.pattern.search(path)
        if match is None:
            return Listed()
        patient, _, image = match.groups()
        view, date, time = self._metadata.get(image, (None, None, None))
        split = self._split_of_image.get(image) or self._split_of_patient.get(patient)
        return Listed(view, date, time, split)

    def match_reports(self, known: KnownStudies) -> Matches:
        """Match by subject and study number."""
        matches = {}
        for study, images in known.images.items():
            ids = self.ids(images[0])
            report = self._reports.path_of(ids.patient or "", ids.study or "") if ids else None
            if report is not None:
                matches[study] = [ReportMatch(0, report, "subject and study number")]
        return Matches(matches)

    def report_stamp(self, path: str) -> tuple[int, int]:
        """Return size and modification time, or size and CRC within the zip."""
        return self._reports.stamp(path)

    def read_report(self, path: str) -> ReportText:
        """Read a text file or a member of the zip."""
        return decode_report(self._reports.read(path))

    def labels(self) -> Iterator[tuple[str, list[int | None]]]:
        """Yield study_id and labels of the chexpert table, else of the negbio table."""
        return _read_labels(self._labels)


class MimicJpgArchive(MimicArchive):
    """An archive of pictures in MIMIC-CXR's layout."""

    name = "mimic-cxr-jpg"
    pattern = re.compile(
        r"(?:^|/)p\d\d/p(\d{8})/s(\d{8})/([^/]+)\.(?:jpg|jpeg|png)$", re.IGNORECASE
    )


def _find_tables(paths: Sequence[str]) -> dict[str, str]:
    """Return the tables' paths by what they hold: metadata, split, record, IMAGE_FILENAMES..."""
    tables: dict[str, str] = {}
    for path in paths:
        if path.endswith((".csv", ".gz", "IMAGE_FILENAMES", "IMAGE_FILENAMES.txt")):
            match = _TABLE.fullmatch(posixpath.basename(path))
            if match:
                tables.setdefault(next(name for name in match.groups() if name), path)
    return tables


def _read_metadata(table: Path | None) -> dict[str, _View]:
    """Return the entries of the metadata table by dicom_id."""
    rows = _rows(
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


def _read_split(table: Path | None) -> tuple[dict[str, str], dict[str, str]]:
    """Return the split by dicom_id and by subject_id; raises SourceError, SplitLeakError."""
    images: dict[str, str] = {}
    patients: dict[str, str] = {}
    leaks: set[str] = set()
    for image, patient, split in _rows(table, ("dicom_id", "subject_id", "split")):
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


def _read_labels(table: Path | None) -> Iterator[tuple[str, list[int | None]]]:
    """Yield study_id and labels: 1, 0, -1 as in the table, None where it is blank."""
    for study, *values in _rows(table, ("study_id", *CHEXPERT_LABELS)):
        yield study, [int(float(value)) if value else None for value in values]


def _count_missing(
    folder: Path, tables: Mapping[str, str], images: Collection[str], studies: Collection[str]
) -> dict[str, int]:
    """Return for each list of the archive, by its path, how many of its entries are not there.

    ``images`` are the dicom_ids of the image files, ``studies`` the study_ids of the reports.
    """
    lists: dict[str, tuple[Sequence[str], Collection[str]]] = {}
    if path := tables.get("record"):
        lists[path] = _columns(place(folder, path), ("dicom_id",))[0], images
    if path := tables.get("study"):
        lists[path] = _columns(place(folder, path), ("study_id",))[0], studies
    if path := tables.get("IMAGE_FILENAMES"):
        lists[path] = _stems(place(folder, path)), images
    return {path: len(set(entries).difference(there)) for path, (entries, there) in lists.items()}


def _padded_time(text: str) -> str | None:
    # hhmmss.fff as a number has lost its leading zeros: 80556.875 is 08:05:56.875.
    whole, point, fraction = text.partition(".")
    return whole.zfill(6) + point + fraction if whole else None


def _stems(names: Path) -> list[str]:
    """Return the names, without folder and suffix, of the files that are listed one a line."""
    try:
        lines = read_at(names, _MAX_TABLE_BYTES).decode("ascii", "replace").split()
    except DicomError as error:
        raise SourceError(
            f"expected a list of files in {names.name}, could not read it ({error.reason})",
            hint=f"fetch {names.name} again from its publisher, or remove it",
        ) from None
    return [line[line.rfind("/") + 1 :].partition(".")[0] for line in lines]


def _columns(
    table: Path, required: Sequence[str], optional: Sequence[str] = ()
) -> list[Sequence[str]]:
    """Return the columns, required ones first; empty texts stand for one that is absent.

    Raises SourceError if the table is damaged or lacks a required column.
    """
    import pyarrow as pa
    from pyarrow import csv

    names = [*required, *optional]
    try:
        read = csv.read_csv(
            BytesIO(read_at(table, _MAX_TABLE_BYTES)),
            convert_options=csv.ConvertOptions(
                include_columns=names,
                include_missing_columns=True,
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=False,
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError, DicomError) as error:
        raise _unreadable(table, required, type(error).__name__) from None
    # No text is null, so a column of nulls is one that the table does not have.
    absent = [name for name in required if read[name].null_count]
    if absent:
        raise _unreadable(table, required, f"no {', '.join(absent[:4])}")
    return [[""] * len(read) if read[name].null_count else read[name].to_pylist() for name in names]


def _rows(
    table: Path | None, required: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[str, ...]]:
    """Yield the table row by row; nothing if there is no table."""
    if table is None:
        return iter(())
    return zip(*_columns(table, required, optional), strict=True)


def _unreadable(table: Path, required: Sequence[str], fault: str) -> SourceError:
    more = "..." if len(required) > 4 else ""
    return SourceError(
        f"expected columns {', '.join(required[:4])}{more} in {table.name}, could not read them "
        f"({fault})",
        hint=f"fetch {table.name} again from its publisher",
    )
