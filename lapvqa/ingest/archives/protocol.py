"""The protocol of a layout: what ingest asks of an archive, whoever made it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lapvqa.dicom.reasons import Reason
from lapvqa.errors import DicomError
from lapvqa.identity import Ids
from lapvqa.schemas import CHEXPERT_LABELS, INVENTORY, LABELS

Value = TypeVar("Value")
IDS = pa.schema([(name, pa.string()) for name in Ids._fields])
"""Identifiers of many files, a row each."""
LISTED = pa.schema([(name, pa.string()) for name in ("view", "date", "time", "split")])
"""Entries of images in the archive's own tables; null where there is none."""
LABELLED = pa.schema(
    [("study", pa.string()), *((name, LABELS.field(name).type) for name in CHEXPERT_LABELS)]
)
"""The archive's own labels: study id, and 1 positive, 0 negative, -1 uncertain, null no word."""
NO_LABELS = LABELLED.empty_table()
NO_STAMPS = INVENTORY.empty_table().replace_schema_metadata(None)
PEOPLE = pa.schema(
    [("patient", pa.string()), ("sex", pa.string()), ("age", pa.int32()), ("year", pa.int32())]
)
"""The archive's own word on its patients: id, M or F, and how old somebody was in a year."""
MASKED_AGE = 90
"""Ages from here on stand for all that are higher."""


def people_of(archive: Archive, patient_key: Callable[[str], str]) -> pa.Table:
    """Return ``PEOPLE`` with keys in place of ids; a layout with such a table has ``people``."""
    read: Callable[[], pa.Table] | None = getattr(archive, "people", None)
    people = PEOPLE.empty_table() if read is None else read()
    keys = [patient_key(one) for one in people["patient"].to_pylist()]
    return people.set_column(0, PEOPLE.field("patient"), pa.array(keys, pa.string()))


def ids_of(archive: Archive, paths: pa.Array) -> tuple[pa.Table, NDArray[np.bool_]]:
    """Return the ids of many images (``IDS``), and which of them the layout knows.

    A layout that can tell all at once has a method ``all_ids`` which says the same.
    """
    at_once: Callable[[pa.Array], tuple[pa.Table, NDArray[np.bool_]]] | None
    at_once = getattr(archive, "all_ids", None)
    return one_by_one(archive.ids, paths) if at_once is None else at_once(paths)


def stamps_of(archive: Archive) -> pa.Table:
    """Return path, size and stamp of reports within files, as far as a layout remembers them.

    A layout that does has a property ``stamps``, which says what ``report_stamp`` would.
    """
    known: pa.Table = getattr(archive, "stamps", NO_STAMPS)
    return known


def one_by_one(
    ids_of_one: Callable[[str], Ids | None], paths: pa.Array
) -> tuple[pa.Table, NDArray[np.bool_]]:
    """Return the same by asking for each."""
    found = [ids_of_one(path) for path in paths.to_pylist()]
    columns = list(zip(*(ids or Ids() for ids in found), strict=True)) or [()] * len(IDS)
    named = pa.table(list(map(pa.array, columns, IDS.types)), schema=IDS)
    return named, np.array([ids is not None for ids in found], bool)


def nothing_listed(ids: pa.Table) -> pa.Table:
    """Return ``LISTED`` of an archive that has no tables."""
    return pa.table([pa.nulls(len(ids), pa.string()) for _ in LISTED], schema=LISTED)


OTHER_STATUS = "other"
MAX_REPORT_BYTES = 1 << 20
"""The longest reports have some ten thousand characters; what is larger is of another kind."""


@dataclass(frozen=True)
class ReportText:
    """One report as the section parser reads it, and the digest of what the archive holds.

    ``sha256`` is of the report's own bytes (a file, a member of a zip or tgz), or of its text where
    it shares a file with others. A layout whose reports are not plain text composes ``text`` of
    lines `` FINDINGS: ...`` as MIMIC-CXR writes.
    """

    text: str
    sha256: str
    encoding: str = "utf-8"
    """As Python names it; ``dicom`` for a structured report, which names its own."""
    form: str = "text"
    """What it was converted from: text | rtf | html | hl7 | fhir | structured_report | table."""
    status: str = ""
    """final | corrected | preliminary | other (a word that is not known), empty if not stated."""
    written: str = ""
    """When it was written, yyyymmdd[hhmmss], as the report itself says; empty if it does not."""


class Lazily(Mapping[str, Value]):
    """A mapping that is made when somebody first looks into it: most layouts need few of them."""

    def __init__(self, make: Callable[[], Mapping[str, Value]]) -> None:
        self._make = make

    @cached_property
    def _made(self) -> Mapping[str, Value]:
        return self._make()

    def __getitem__(self, key: str) -> Value:
        return self._made[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


@dataclass(frozen=True)
class KnownStudies:
    """The studies that reports may belong to, by study key, as match_reports is told of them.

    Identifiers of studies are known as keyed hashes only: whoever has one of a report's names
    hashes it by the functions here and looks it up. Without those nothing is matched by name.
    """

    images: Mapping[str, Sequence[str]]
    """Each study's image files."""
    copies: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Those that lie elsewhere as copies, which show that a folder is not one study's alone."""
    study_key: Callable[[str], str] | None = None
    """Hashes a Study Instance UID, as the keys of ``images``."""
    accession_key: Callable[[str], str] | None = None
    """Hashes an Accession Number, as the keys of ``by_accession``."""
    instance_key: Callable[[str], str] | None = None
    """Hashes a SOP Instance UID, as the keys of ``by_instance``."""
    patient_key: Callable[[str], str] | None = None
    """Hashes a Patient ID, as the values of ``patients``."""
    by_accession: Mapping[str, str | None] = field(default_factory=dict)
    """Study of each accession key; None if several studies share it."""
    by_instance: Mapping[str, str] = field(default_factory=dict)
    """Study of each image's instance key."""
    patients: Mapping[str, str] = field(default_factory=dict)
    """Patient key of each study."""
    dates: Mapping[str, str] = field(default_factory=dict)
    """Study Date, yyyymmdd, of each study whose date is known."""
    structured_reports: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Files with DICOM SR of each study."""
    structured_elsewhere: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Those with a Study Instance UID of their own, and accession number and patient of a study."""

    first_images: Mapping[str, str] = field(default_factory=dict)
    """The first image file of each study."""

    def __post_init__(self) -> None:
        """Take ``first_images`` from ``images`` if nobody has given them."""
        if not self.first_images:
            first = {study: paths[0] for study, paths in self.images.items()}
            object.__setattr__(self, "first_images", first)


@dataclass(frozen=True, order=True)
class ReportMatch:
    """A report that may be a study's, and by which rule; of several the lowest rank counts."""

    rank: int
    path: str
    rule: str
    """In words, for the account; it names no file and nobody."""


@dataclass(frozen=True)
class Refusal:
    """Why a report is no study's."""

    reason: Reason
    detail: str
    written: str = ""
    """When a report was withdrawn, as in ``ReportText``."""

    @classmethod
    def of(cls, error: DicomError) -> Refusal:
        """Return the refusal that an error stands for."""
        return cls(Reason(error.reason), error.message, written_of(error))

    def error(self) -> DicomError:
        """Return the error that stands for the refusal."""
        if self.reason == Reason.REPORT_WITHDRAWN:
            return Withdrawn(self.detail, self.written)
        return DicomError(self.reason, self.detail)


class Withdrawn(DicomError):
    """A report that says that it, and what was written before it, does not count."""

    def __init__(self, detail: str, written: str) -> None:
        super().__init__(Reason.REPORT_WITHDRAWN, detail)
        self.written = written


def written_of(error: DicomError) -> str:
    """Return when a report was withdrawn; empty of every other error."""
    return error.written if isinstance(error, Withdrawn) else ""


MATCHES = pa.schema(
    [("study", pa.string()), ("rank", pa.int32()), ("path", pa.string()), ("rule", pa.string())]
)
"""Study key, and the fields of a ``ReportMatch``."""


@dataclass(frozen=True)
class Matches:
    """The reports that may be a study's, and why others are not.

    A report stands for one study only. Those in neither have no study to go with.
    """

    table: pa.Table
    """``MATCHES``; those of a study stand together."""
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    notes: Sequence[str] = ()
    """What else is to be said of the reports; it names no file and nobody."""

    @classmethod
    def of(
        cls,
        reports: Mapping[str, Sequence[ReportMatch]],
        refused: Mapping[str, Refusal] | None = None,
    ) -> Matches:
        """Return the matches that are given by study key."""
        rows = [(key, m.rank, m.path, m.rule) for key, own in reports.items() for m in own]
        columns = list(zip(*rows, strict=True)) or [()] * len(MATCHES)
        return cls(
            pa.table(list(map(pa.array, columns, MATCHES.types)), schema=MATCHES), refused or {}
        )

    @classmethod
    def by_name(cls, reports: Mapping[str, str], rule: str) -> Matches:
        """Return one report for each study key, all by one rule."""
        number = len(reports)
        columns = [[*reports], [0] * number, [*reports.values()], [rule] * number]
        return cls(pa.table(list(map(pa.array, columns, MATCHES.types)), schema=MATCHES))

    @property
    def reports(self) -> dict[str, list[ReportMatch]]:
        """The same by study key."""
        found: dict[str, list[ReportMatch]] = {}
        columns = [self.table[name].to_pylist() for name in MATCHES.names]
        for study, rank, path, rule in zip(*columns, strict=True):
            found.setdefault(study, []).append(ReportMatch(rank, path, rule))
        return found


class Archive(Protocol):
    """One archive: its image files, its reports and its tables. Paths are relative, with /."""

    name: str
    images: Sequence[str]
    """Files to read as DICOM or, by their suffix, as PNG or JPEG pictures; sorted."""
    looked_for: str
    """Where reports are looked for, in words, for the error when there is none."""
    has_split: bool
    """The archive brings an official split."""
    missing: Mapping[str, int]
    """Of each list of files that the archive brings (by its path), how many are not there."""

    @property
    def reports(self) -> Sequence[str]:
        """Files, ``x.zip/member``, ``x.tgz/member`` or ``x.csv#row``, that may be a report."""

    @property
    def tables(self) -> Sequence[str]:
        """Files that the layout reads besides: its tables and lists, a packed file of reports."""

    def ids(self, path: str) -> Ids | None:
        """Return the ids in an image's path; None if it lies outside the layout.

        The path alone decides: as long as the layout's code is the same, so are they.
        """

    def listed(self, ids: pa.Table) -> pa.Table:
        """Return what the archive's tables say of images (``IDS``), a row of ``LISTED`` each."""

    def match_reports(self, known: KnownStudies) -> Matches:
        """Return which reports may be which study's."""

    def report_stamp(self, path: str) -> tuple[int, int]:
        """Return two numbers that change when the report does: size and mtime, or size and CRC.

        Raises OSError if it cannot be found.
        """

    def read_report(self, path: str) -> ReportText:
        """Read one report; raises DicomError with one of the reasons for reports."""

    def labels(self) -> pa.Table:
        """Return study ids, as in the paths, and the 14 CheXpert labels: ``LABELLED``."""
