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

MIMIC-CXR itself says nothing of sex and age. MIMIC-IV's hosp/patients.csv.gz does, for most of its
patients: laid anywhere into the archive it is read as one of the tables.

Not read: mimic-cxr-2.1.0-test-set-labeled.csv. One radiologist's labels of some test studies could
not be told from the thousands that a program gave; they are for judging labels, not making them.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lapvqa.dicom.person import clean_sex
from lapvqa.dicom.views import clean_view, view_of_meaning
from lapvqa.errors import DicomError, SourceError, SplitLeakError
from lapvqa.identity import Ids
from lapvqa.ingest.archives.members import read_at
from lapvqa.ingest.archives.names import place
from lapvqa.ingest.archives.protocol import (
    IDS,
    LABELLED,
    LISTED,
    NO_LABELS,
    PEOPLE,
    KnownStudies,
    Matches,
    ReportText,
    ids_of,
    one_by_one,
)
from lapvqa.ingest.archives.report_files import ReportFiles, decode_report
from lapvqa.ingest.columns import (
    Column,
    Mask,
    first_of,
    mapped,
    numbered,
    picked,
    positions,
    whole,
)
from lapvqa.schemas import CHEXPERT_LABELS

_REPORT = re.compile(r"(?:^|/)p\d\d/p(\d{8})/s(\d{8})\.txt$")
_PACKED_REPORTS = ("mimic-cxr-reports.zip",)
_TABLE = re.compile(
    r"(?:mimic-cxr-[\d.]+-(metadata|split|chexpert|negbio)|cxr-(record|study)-list)\.csv(?:\.gz)?"
    r"|(IMAGE_FILENAMES)(?:\.txt)?(?:\.gz)?|(patients)\.csv(?:\.gz)?"
)
_MAX_TABLE_BYTES = 1 << 30
_SPLITS = {"train", "validate", "test"}


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

    _suffix = ".dcm"
    """Of nearly all images."""

    def __init__(self, folder: Path, paths: Sequence[str], images: Sequence[str]) -> None:
        self.images = images
        self._reports = ReportFiles(folder, paths, _REPORT, _PACKED_REPORTS)
        self.reports: Sequence[str] = self._reports.paths
        tables = _find_tables(paths)
        self.tables: Sequence[str] = sorted([*tables.values(), *self._reports.packed])
        files = {name: place(folder, path) for name, path in tables.items()}
        self.has_split = "split" in files
        self._split = _read_split(files.get("split"))
        self._metadata = _read_metadata(files.get("metadata"))
        self._labels = files.get("chexpert") or files.get("negbio")
        self._people = files.get("patients")
        self.missing: Mapping[str, int] = self._count_missing(folder, tables)

    def ids(self, path: str) -> Ids | None:
        """Return dicom_id, study_id and subject_id."""
        match = self.pattern.search(path)
        return Ids(*match.group(3, 2, 1)) if match else None

    def all_ids(self, paths: pa.Array) -> tuple[pa.Table, Mask]:
        """Return the same of many images: of plain names what stands at their end."""
        suffix, plain = re.escape(self._suffix), r"/p[0-9]{8}/s[0-9]{8}/[^/.\n]+"
        is_plain = pc.match_substring_regex(paths, rf"(?:^|/)p[0-9]{{2}}{plain}{suffix}$")
        folders = pc.replace_substring_regex(paths, "/[^/]*$", "")
        names = pc.replace_substring_regex(paths, "(?s)^.*/", "")
        none = pa.scalar(None, pa.string())
        columns = [
            pc.if_else(is_plain, pc.utf8_slice_codeunits(texts, start, stop), none)
            for texts, start, stop in (
                (names, 0, -len(self._suffix)), (folders, -8, None), (folders, -18, -10),
            )
        ]  # fmt: skip
        is_known = is_plain.to_numpy(zero_copy_only=False).copy()
        rest = np.flatnonzero(~is_known)
        others, is_known[rest] = one_by_one(self.ids, paths.take(pa.array(rest)))
        mask = pa.array(~is_plain.to_numpy(zero_copy_only=False))
        return pa.table(
            [
                pc.replace_with_mask(column, mask, whole(other))
                for column, other in zip(columns, others.columns, strict=True)
            ],
            schema=IDS,
        ), is_known

    def listed(self, ids: pa.Table) -> pa.Table:
        """Return view, date and time of the metadata table, and the official split.

        An image that the split table lacks has the split of its patient.
        """
        rows = positions(ids["image"], self._metadata["dicom_id"])
        split = picked(self._split["split"], positions(ids["image"], self._split["dicom_id"]))
        patient = positions(ids["patient"], self._split["subject_id"])
        split = pc.coalesce(split, picked(self._split["split"], patient))
        columns = [picked(self._metadata[name], rows) for name in LISTED.names[:3]]
        return pa.table([*columns, split], schema=LISTED)

    def match_reports(self, known: KnownStudies) -> Matches:
        """Match by subject and study number."""
        first = pa.array(known.first_images.values(), pa.string())
        ids, _ = ids_of(self, first)
        wanted = pc.binary_join_element_wise(ids["patient"], ids["study"], "/")
        found = picked(self._reports.named["path"], positions(wanted, self._reports.named["name"]))
        reports = zip(known.first_images, found.to_pylist(), strict=True)
        by_study = {study: report for study, report in reports if report is not None}
        return Matches.by_name(by_study, "subject and study number")

    def report_stamp(self, path: str) -> tuple[int, int]:
        """Return size and modification time, or size and CRC within the zip."""
        return self._reports.stamp(path)

    def read_report(self, path: str) -> ReportText:
        """Read a text file or a member of the zip."""
        return decode_report(self._reports.read(path))

    def labels(self) -> pa.Table:
        """Return study_id and labels of the chexpert table, else of the negbio table."""
        return NO_LABELS if self._labels is None else _read_labels(self._labels)

    def people(self) -> pa.Table:
        """Return sex and age of MIMIC-IV's patients.csv, if somebody has put it here."""
        read = _read(self._people, ("subject_id", "gender", "anchor_age", "anchor_year"))
        ages, years = (
            mapped(read[name], lambda text: text if text.isdecimal() else None).cast(pa.int32())
            for name in ("anchor_age", "anchor_year")
        )
        sex = mapped(read["gender"], lambda text: clean_sex(text) or None)
        return pa.table([whole(read["subject_id"]), sex, ages, years], schema=PEOPLE)

    @cached_property
    def _image_stems(self) -> pa.Array:
        return _stems(pa.array(self.images, pa.string()))

    def _count_missing(self, folder: Path, tables: Mapping[str, str]) -> dict[str, int]:
        """Return for each list of the archive, by its path, how many of its entries are absent."""
        absent: dict[str, int] = {}
        for name, column in (
            ("record", "dicom_id"),
            ("study", "study_id"),
            ("IMAGE_FILENAMES", ""),
        ):
            path = tables.get(name)
            if path is None:
                continue
            file = place(folder, path)
            entries = _read(file, (column,))[column] if column else _listed_in(file)
            if name == "study":
                there = pc.replace_substring_regex(self._reports.named["name"], "^.*/", "")
            else:
                there = self._image_stems
            is_absent = pa.array(positions(entries, there) < 0)
            absent[path] = len(pc.unique(whole(entries).filter(is_absent)))
        return absent


class MimicJpgArchive(MimicArchive):
    """An archive of pictures in MIMIC-CXR's layout."""

    name = "mimic-cxr-jpg"
    _suffix = ".jpg"
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


def _read_metadata(table: Path | None) -> pa.Table:
    """Return view, date and time by dicom_id."""
    names = ("dicom_id", "ViewPosition", "StudyDate", "StudyTime")
    read = _read(table, names, ("ViewCodeSequence_CodeMeaning",))
    by_position = mapped(read["ViewPosition"], lambda text: clean_view(text) or None)
    by_meaning = mapped(
        read["ViewCodeSequence_CodeMeaning"], lambda text: view_of_meaning(text) or None
    )
    dates = pc.if_else(pc.equal(read["StudyDate"], ""), None, read["StudyDate"])
    columns = [
        read["dicom_id"],
        pc.coalesce(by_position, by_meaning),
        dates,
        _padded(read["StudyTime"]),
    ]
    return _last_first(pa.table(columns, ["dicom_id", *LISTED.names[:3]]))


def _read_split(table: Path | None) -> pa.Table:
    """Return the split by dicom_id and subject_id; raises SourceError, SplitLeakError."""
    read = _read(table, ("dicom_id", "subject_id", "split"))
    wrong = [name for name in pc.unique(read["split"]).to_pylist() if name not in _SPLITS]
    if wrong:
        raise SourceError(
            f"expected train, validate or test in the split table, found {wrong[0][:16]!r}",
            hint="use MIMIC-CXR-JPG's own mimic-cxr-2.0.0-split.csv.gz",
        )
    splits, patients = numbered(read["split"]), numbered(read["subject_id"])
    leaks = len(np.unique(patients[splits != splits[first_of(patients)]]))
    if leaks:
        raise SplitLeakError(
            f"the split table puts {leaks} patients into more than one split",
            hint="use MIMIC-CXR-JPG's own mimic-cxr-2.0.0-split.csv.gz, or remove the table",
        )
    return _last_first(read)


def _last_first(table: pa.Table) -> pa.Table:
    """Return the rows in reverse order: of several rows of an image the last one counts."""
    return table.take(pa.array(np.arange(len(table))[::-1]))


def _read_labels(table: Path) -> pa.Table:
    """Return study_id and labels: 1, 0, -1 as in the table, null where it is blank."""
    read = _read(table, ("study_id", *CHEXPERT_LABELS))
    labels = [
        mapped(read[name], lambda text: str(int(float(text))) if text else None).cast(pa.int8())
        for name in CHEXPERT_LABELS
    ]
    return pa.table([whole(read["study_id"]), *labels], schema=LABELLED)


def _padded(times: Column) -> pa.Array:
    # hhmmss.fff as a number has lost its leading zeros: 80556.875 is 08:05:56.875.
    wholes = pc.replace_substring_regex(times, r"\..*$", "")
    fractions = pc.replace_substring_regex(times, r"^[^.]*", "")
    padded = pc.binary_join_element_wise(pc.utf8_lpad(wholes, 6, "0"), fractions, "")
    return pc.if_else(pc.equal(wholes, ""), None, padded)


def _listed_in(names: Path) -> pa.Array:
    """Return the stems of the files that are listed one a line."""
    try:
        lines = read_at(names, _MAX_TABLE_BYTES).decode("ascii", "replace").split()
    except DicomError as error:
        raise SourceError(
            f"expected a list of files in {names.name}, could not read it ({error.reason})",
            hint=f"fetch {names.name} again from its publisher, or remove it",
        ) from None
    return _stems(pa.array(lines, pa.string()))


def _stems(paths: pa.Array) -> pa.Array:
    """Return the names without folder and suffix."""
    names = pc.replace_substring_regex(paths, "^.*/", "")
    return pc.replace_substring_regex(names, r"\..*$", "")


def _read(table: Path | None, required: Sequence[str], optional: Sequence[str] = ()) -> pa.Table:
    """Return the columns as texts; empty ones for one that is absent. No table has no rows.

    Raises SourceError if the table is damaged or lacks a required column.
    """
    from pyarrow import csv

    names = [*required, *optional]
    if table is None:
        return pa.table([pa.array([], pa.string()) for _ in names], names)
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
    return pa.table([whole(pc.fill_null(read[name], "")) for name in names], names)


def _unreadable(table: Path, required: Sequence[str], fault: str) -> SourceError:
    more = "..." if len(required) > 4 else ""
    return SourceError(
        f"expected columns {', '.join(required[:4])}{more} in {table.name}, could not read them "
        f"({fault})",
        hint=f"fetch {table.name} again from its publisher",
    )
