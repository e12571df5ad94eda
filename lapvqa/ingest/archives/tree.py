"""A plain tree of DICOM files: patient and study come from the DICOM header.

A report belongs to the study that it names, or where it lies. In this order:
1. a row of a table, then a FHIR DiagnosticReport, then an HL7 v2 message: by Study Instance UID,
   accession number, SOP Instance UID or an image's path, whichever it has,
2. DICOM SR of the study, then one with another Study Instance UID, and the study's accession
   number and patient,
3. ``<Study Instance UID>.txt`` or ``<Accession Number>.txt`` anywhere, then with something after it
   (``A100_2.txt``), then the only text in a folder of that name,
4. ``<study folder>.txt`` beside the folder, the study's folder being the deepest one that holds all
   its image files,
5. a text beside an image and named like it (IM1.dcm, IM1.txt),
6. the only text in the study's folder, then 4 and 6 again for the folders above,
7. a text named by the date of the only study of that date among those of one patient below its
   folder.
Where 3 says one study and the place another (4 to 6, or a folder of another study alone), or where
the date in a text's name is not that of the study of 6, the text is nobody's.
In 4 and 6 a folder counts only if this study alone has images in it: in a folder shared by several
studies nothing tells whose report it is. A report that names two studies, an accession number of
two, or a text that two studies lay claim to by the same rule, is nobody's.

Pictures (.png, .jpg) are not images here: nothing names their study.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lapvqa.dicom.header import clean_date
from lapvqa.dicom.reasons import Reason
from lapvqa.identity import Ids
from lapvqa.ingest.archives.arrived import arrival_of
from lapvqa.ingest.archives.claims import SOURCES, plain_claims
from lapvqa.ingest.archives.messages import Hashes, Keys, Names
from lapvqa.ingest.archives.protocol import (
    IDS,
    NO_LABELS,
    NO_STAMPS,
    KnownStudies,
    Matches,
    Refusal,
    ReportMatch,
    ReportText,
    nothing_listed,
)
from lapvqa.ingest.archives.report_index import Entries, ReportIndex, entries_of
from lapvqa.ingest.archives.report_sources import TreeReports
from lapvqa.machine import ReportSources
from lapvqa.schemas import INVENTORY

_RANK_SR, _RANK_NAME, _RANK_PLACE, _RANK_DATE = 40, 50, 60, 1000
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)+")
_WITH_MORE = re.compile(r"(.+?)[ _-]\w{1,16}")
_DATE = re.compile(r"(?<!\d)(\d{4})[-_.]?(\d\d)[-_.]?(\d\d)(?!\d)")
_ELSEWHERE = Refusal(Reason.AMBIGUOUS_REPORT, "its name says one study, and its place says another")
_OTHER_DATE = Refusal(
    Reason.AMBIGUOUS_REPORT, "its name has a date, and the study of its place has another"
)
_DOCUMENT = Refusal(Reason.REPORT_FORMAT, "expected text, RTF or HTML, found a document")
_TWO_STUDIES = Refusal(Reason.AMBIGUOUS_REPORT, "two studies have an equal claim to it")
_OTHER_PATIENT = Refusal(
    Reason.PATIENT_MISMATCH, "its patient is not the patient of the images of its study"
)
_SHARED_NUMBER = Refusal(Reason.AMBIGUOUS_REPORT, "its accession number belongs to several studies")

_ALONE = "only text in the study's folder"
Claim = tuple[ReportMatch, str]
"""A report, and the study that it may belong to."""


class TreeArchive:
    """Any folder of DICOM files, with or without reports."""

    name = "tree"
    looked_for = (
        "a table (CSV, TSV, Parquet) with a column of study UIDs or accession numbers and one of "
        "text, HL7 ORU, FHIR DiagnosticReport, DICOM SR, STUDY_INSTANCE_UID.txt, "
        "ACCESSION_NUMBER.txt, STUDY_FOLDER.txt, a .txt named like an image, or one .txt in a "
        "folder of one study; docs/ingest.md shows each"
    )
    has_split = False
    missing: Mapping[str, int] = MappingProxyType({})

    def __init__(
        self,
        folder: Path,
        paths: Sequence[str],
        images: Sequence[str],
        stated: ReportSources | None = None,
        index: ReportIndex | None = None,
    ) -> None:
        self.images = images
        read_as_images = set(images)
        others = [path for path in paths if path not in read_as_images]
        self._reports = TreeReports(folder, others, stated or ReportSources(), index)

    @property
    def reports(self) -> Sequence[str]:
        """Texts, rows, messages and resources; structured reports count as images until read."""
        return sorted([*self._reports.texts, *self._reports.entries.paths])

    @property
    def tables(self) -> Sequence[str]:
        """Files that hold several reports, or one under its own name."""
        return sorted(self._reports.entries.files - {*self.reports})

    def ids(self, path: str) -> Ids:
        """Return no ids: the header has them."""
        return Ids()

    def all_ids(self, paths: pa.Array) -> tuple[pa.Table, NDArray[np.bool_]]:
        """Return the same of many images."""
        nothing = pa.nulls(len(paths), pa.string())
        return pa.table([nothing] * len(IDS), schema=IDS), np.ones(len(paths), bool)

    def listed(self, ids: pa.Table) -> pa.Table:
        """Return nothing: a tree has no tables."""
        return nothing_listed(ids)

    def labels(self) -> pa.Table:
        """Return no labels: a tree has no tables."""
        return NO_LABELS

    def match_reports(self, known: KnownStudies) -> Matches:
        """Match by the rules above."""
        index = _Index(known)
        refused: dict[str, Refusal] = {}
        plain, claims = claims_of(self._reports.entries, index, refused)
        loose = [*self._reports.texts, *self._reports.rich_texts]
        claims += _claims_of_texts(loose, index, refused)
        without = set(self._reports.texts) - {match.path for match, _ in claims}
        found = self._reports.look_into(sorted(without))
        for file in found.files:  # its content says whose it is
            refused.pop(file, None)
        plain_too, others = claims_of(found, index, refused)
        claims += others
        claims += [
            (ReportMatch(rank, path, f"structured report {by}"), study)
            for rank, by, own in (
                (_RANK_SR, "of the study", known.structured_reports),
                (_RANK_SR + 1, "by accession number", known.structured_elsewhere),
            )
            for study, paths in own.items()
            for path in paths
            if study in known.images
        ]
        matches = _resolve(claims, refused)
        at_once = pa.concat_tables([plain, plain_too])
        has_report = {*matches, *(at_once["study"].to_pylist() if self._reports.documents else ())}
        for match, study in _claims_of_texts(self._reports.documents, index, {}):
            if study not in has_report:
                refused[match.path] = _DOCUMENT
        shared = index.shared_folders if self._reports.texts else ()
        for path in self._reports.texts:
            if path not in refused and posixpath.dirname(path) in shared:
                detail = "its folder holds several studies, and its name says nothing of which"
                refused[path] = Refusal(Reason.REPORT_WITHOUT_STUDY, detail)
        taken = {match.path for own in matches.values() for match in own}
        self._reports.remember()
        asked = Matches.of(matches, {p: why for p, why in refused.items() if p not in taken})
        every = pa.concat_tables([at_once, asked.table])
        return Matches(every, asked.refused, self._reports.notes)

    def report_stamp(self, path: str) -> tuple[int, int]:
        """Return size and modification time of a file, length and digest of a row or message."""
        return self._reports.stamp(path)

    @property
    def stamps(self) -> pa.Table:
        """Return the same of all that is remembered of files with several reports."""
        names = ["path", "length", "mark"]
        kept = self._reports.entries.kept.select(names)
        return kept.rename_columns(INVENTORY.names).cast(NO_STAMPS.schema)

    def read_report(self, path: str) -> ReportText:
        """Read a text, a row, a message, a resource or a structured report.

        One that has arrived and has no date of its own was written when it came.
        """
        report = self._reports.read(path)
        return report if report.written else replace(report, written=arrival_of(path))


class _Index:
    """What the known studies are called, and where their images lie."""

    def __init__(self, known: KnownStudies) -> None:
        self.known = known

    @cached_property
    def hashes(self) -> Hashes:
        """The functions by which the studies are known."""
        known = self.known
        return Hashes(
            known.study_key, known.accession_key, known.instance_key, known.patient_key
        )  # fmt: skip

    def by_uid(self, uid: str) -> str | None:
        """Return the study of a Study Instance UID."""
        key = self.hashes.study(uid) if self.hashes.study else None
        return key if key in self.known.images else None

    def by_accession(self, keys: Sequence[str]) -> tuple[bool, str | None]:
        """Return whether a study has the accession number, and which; None if several have."""
        owners = self._owners
        if keys and keys[0] in owners:
            return True, owners[keys[0]]
        # Of a number that is written in another case only hashes are known.
        found = {owners[key] for key in keys[1:] if key in owners}
        return bool(found), found.pop() if len(found) == 1 else None

    def studies_named(self, keys: Keys) -> Iterator[tuple[str, str | None]]:
        """Yield by what each of a report's names is known, and whose it is; None: several."""
        for key in keys.studies:
            if key in self._images:
                yield "study UID", key
        for numbers in keys.accessions:
            is_known, owner = self.by_accession(numbers)
            if is_known:
                yield "accession number", owner
        for key in keys.instances:
            if study := self.known.by_instance.get(key):
                yield "SOP instance UID", study
        for path in keys.image_paths:
            owners = self._owners_of_path(path)
            if owners:
                yield "image path", next(iter(owners)) if len(owners) == 1 else None

    @cached_property
    def _images(self) -> dict[str, Sequence[str]]:
        return dict(self.known.images)

    @cached_property
    def _owners(self) -> dict[str, str | None]:
        return dict(self.known.by_accession)

    def is_of_patient(self, study: str, keys: Sequence[str]) -> bool:
        """Tell whether a study's patient is one of these, or none is given."""
        patient = self.known.patients.get(study) if keys else None
        return patient is None or patient in keys

    def _owners_of_path(self, path: str) -> set[str]:
        """Return the studies whose image a path may be: the end of either may be left out."""
        wanted = path.strip("/")
        base = posixpath.basename(wanted)
        places = self._by_basename.get(base) or self._by_basename.get(posixpath.splitext(base)[0])
        found = [
            (place, study)
            for place, study in places or ()
            if wanted == base or _is_end(wanted, place) or _is_end(place, wanted)
        ]
        exact = {study for place, study in found if place == wanted}
        return exact or {study for _, study in found}

    @cached_property
    def _by_basename(self) -> Mapping[str, Sequence[tuple[str, str]]]:
        places: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for study, images in self.known.images.items():
            for path in images:
                base = posixpath.basename(path)
                for name in {base, posixpath.splitext(base)[0]}:
                    places[name].append((path, study))
        return places

    @cached_property
    def owners(self) -> Mapping[str, str | None]:
        """Each folder with images at any depth: its study, None if there are several."""
        return _folders_of_one_study([*self.known.images.items(), *self.known.copies.items()])

    @cached_property
    def shared_folders(self) -> frozenset[str]:
        """Folders with images of several studies."""
        return frozenset(folder for folder, study in self.owners.items() if study is None)


def claims_of(
    entries: Entries, index: _Index, refused: dict[str, Refusal]
) -> tuple[pa.Table, list[Claim]]:
    """Return the matches of reports that are plain, and what the others claim."""
    plain, odd = plain_claims(entries.kept, index.known)
    claims: list[Claim] = []
    for entry in (*entries_of(odd), *entries.read.values()):
        if entry.refusal is not None:
            refused[entry.path] = entry.refusal
            if entry.refusal.reason != Reason.REPORT_WITHDRAWN:
                continue
        rank, where = SOURCES[entry.source]
        keys = index.hashes.keys(entry.names) if isinstance(entry.names, Names) else entry.names
        hits = list(index.studies_named(keys))
        studies = {study for _, study in hits if study}
        if len(studies) == 1:
            by, study = next((by, study) for by, study in hits if study)
            if not index.is_of_patient(study, keys.patients):
                refused[entry.path] = _OTHER_PATIENT
                continue
            claims.append((ReportMatch(rank, entry.path, f"{by} {where}"), study))
        elif hits and entry.refusal is None:
            refused[entry.path] = _TWO_STUDIES if studies else _SHARED_NUMBER
    return plain, claims


def _is_end(end: str, path: str) -> bool:
    return path == end or path.endswith("/" + end)


def _resolve(claims: Sequence[Claim], refused: dict[str, Refusal]) -> dict[str, list[ReportMatch]]:
    """Give each report to the study with the strongest claim; nobody's if two are equal."""
    by_path: dict[str, list[Claim]] = defaultdict(list)
    for claim in claims:
        by_path[claim[0].path].append(claim)
    matches: dict[str, list[ReportMatch]] = defaultdict(list)
    for path, own in by_path.items():
        if len(own) == 1:
            matches[own[0][1]].append(own[0][0])
            continue
        best = min(own)[0].rank
        studies = {study for match, study in own if match.rank == best}
        if len(studies) > 1:
            refused[path] = _TWO_STUDIES
        else:
            matches[studies.pop()].append(min(own)[0])
    return matches


def _claims_of_texts(
    texts: Sequence[str], index: _Index, refused: dict[str, Refusal]
) -> list[Claim]:
    if not texts:
        return []
    texts_in: dict[str, list[str]] = defaultdict(list)
    for path in texts:
        texts_in[posixpath.dirname(path)].append(path)
    named: list[Claim] = []
    for path in texts:
        named += _named(path, texts_in, index, refused)
    by_stem: dict[str, list[str]] = defaultdict(list)
    for path in texts:
        by_stem[posixpath.splitext(path)[0]].append(path)
    placed: list[Claim] = []
    for study, images in index.known.images.items():
        placed += _placed(study, images, by_stem, texts_in, index)
    placed = _without_contradictions(named, placed, index, refused)
    dated = _dated([path for path in texts if _date_in(path)], index)
    return [claim for claim in (*named, *placed, *dated) if claim[0].path not in refused]


def _without_contradictions(
    named: Sequence[Claim], placed: Sequence[Claim], index: _Index, refused: dict[str, Refusal]
) -> list[Claim]:
    """Return the claims by place; refuse a text whose name and place say different things."""
    own = {match.path: study for match, study in named}
    for path, study in own.items():
        if index.owners.get(posixpath.dirname(path)) not in (None, study):
            refused[path] = _ELSEWHERE
    agreeing = []
    for match, study in placed:
        date = _date_in(match.path) if match.rule == _ALONE else ""
        if own.get(match.path, study) != study:
            refused[match.path] = _ELSEWHERE
        elif date and match.path not in own and index.known.dates.get(study, date) != date:
            refused[match.path] = _OTHER_DATE
        else:
            agreeing.append((match, study))
    return agreeing


def _named(
    path: str, texts_in: Mapping[str, Sequence[str]], index: _Index, refused: dict[str, Refusal]
) -> Iterator[Claim]:
    """Yield the study that a text's name, or that of a folder for it alone, is an identifier of."""
    folder = posixpath.dirname(path)
    stem = posixpath.splitext(posixpath.basename(path))[0]
    longer = _WITH_MORE.fullmatch(stem)
    alone = posixpath.basename(folder) if len(texts_in[folder]) == 1 else ""
    for number, name in enumerate((stem, longer[1] if longer else "", alone)):
        if not name:
            continue
        rank = _RANK_NAME + number
        if _UID.fullmatch(name) and (study := index.by_uid(name)):
            yield ReportMatch(rank, path, "text named by study UID"), study
            return
        is_known, owner = index.by_accession(index.hashes.accession_keys(name))
        if owner:
            yield ReportMatch(rank, path, "text named by accession number"), owner
            return
        if is_known:
            refused[path] = _SHARED_NUMBER


def _placed(
    study: str,
    images: Sequence[str],
    by_stem: Mapping[str, Sequence[str]],
    texts_in: Mapping[str, Sequence[str]],
    index: _Index,
) -> Iterator[Claim]:
    """Yield the texts that lie where a study's report may lie."""
    folder = posixpath.commonpath([posixpath.dirname(path) for path in images])
    own = [above for above in _upwards(folder) if index.owners[above] == study]
    rank = _RANK_PLACE
    if own:
        yield from _all(by_stem.get(own[0], ()), rank, "text beside the study's folder", study)
    for path in images:
        stem = posixpath.splitext(path)[0]
        if stem in by_stem:
            yield from _all(by_stem[stem], rank + 1, "text named like an image", study)
    for above in own:
        rank += 2
        if rank > _RANK_PLACE + 2:
            yield from _all(by_stem.get(above, ()), rank, "text beside the study's folder", study)
        if len(texts_in.get(above, ())) == 1:
            yield from _all(texts_in[above], rank + 1, _ALONE, study)


def _all(paths: Sequence[str], rank: int, rule: str, study: str) -> Iterator[Claim]:
    for path in paths:
        yield ReportMatch(rank, path, rule), study


def _dated(texts: Sequence[str], index: _Index) -> Iterator[Claim]:
    """Yield the one study of a text's date in its folder, if all there are of one patient."""
    wanted = {posixpath.dirname(path) for path in texts}
    studies_in: dict[str, set[str]] = defaultdict(set)
    for study, images in index.known.images.items() if wanted else ():
        for path in images:
            for folder in _upwards(posixpath.dirname(path)):
                if folder in wanted:
                    studies_in[folder].add(study)
    for path in texts:
        studies = studies_in[posixpath.dirname(path)]
        patients = {index.known.patients.get(study) for study in studies}
        of_date = [s for s in studies if index.known.dates.get(s) == _date_in(path)]
        if len(patients) == len(of_date) == 1 and None not in patients:
            yield ReportMatch(_RANK_DATE, path, "text named by the study's date"), of_date[0]


def _date_in(path: str) -> str:
    """Return the only date in a file's name, yyyymmdd; empty if there is none, or another."""
    dates = _DATE.findall(posixpath.splitext(posixpath.basename(path))[0])
    return clean_date("".join(dates[0])) if len(dates) == 1 else ""


def _folders_of_one_study(
    studies: Iterable[tuple[str, Sequence[str]]],
) -> dict[str, str | None]:
    """Return for each folder with images at any depth its study, None if there are several."""
    owner: dict[str, str | None] = {}
    for study, images in studies:
        for path in images:
            for folder in _upwards(posixpath.dirname(path)):
                owner[folder] = study if owner.get(folder, study) == study else None
    return owner


def _upwards(folder: str) -> Iterator[str]:
    """Yield the folder and those above it, without the archive's root."""
    while folder:
        yield folder
        folder = posixpath.dirname(folder)
