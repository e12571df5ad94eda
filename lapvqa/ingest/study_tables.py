"""The stage's tables, made of the judged files; rows sorted by key."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lapvqa.dicom import person
from lapvqa.dicom.header import clean_date, clean_time
from lapvqa.dicom.reasons import COPIES, Reason
from lapvqa.identity import Keyring
from lapvqa.images.shards import shard_name
from lapvqa.ingest import tombstones
from lapvqa.ingest.archives.protocol import (
    MASKED_AGE,
    Archive,
    KnownStudies,
    Lazily,
    Matches,
    Refusal,
    ReportMatch,
)
from lapvqa.ingest.columns import (
    Column,
    Mask,
    Rows,
    counted,
    digest,
    is_one_of,
    is_set,
    is_valid,
    kept,
    mapped,
    numbered,
    picked,
    positions,
    replaced,
    unordered,
    whole,
)
from lapvqa.ingest.reports import ReportResult, as_results
from lapvqa.ingest.verdicts import is_taken
from lapvqa.params import SeveralReports
from lapvqa.schemas import CHEXPERT_LABELS, DEMOGRAPHICS, IMAGES, LABELS, REJECTS, STUDIES

STAGE = "ingest"
STRUCTURED_REPORT = "structured_report"
"""Value of column ``companion`` in the stored results."""
NEEDED = (
    "path", "reason", "detail", "exception", "file_sha256", "study", "study_key", "patient_key",
    "accession_key", "instance_key", "split", "companion", "listed_date", "listed_time",
    "study_date", "study_time", "sex", "age_band",
)  # fmt: skip
"""Columns of the judged files that studies, reports, labels and rejects are made of."""
_UNKNOWN_LAST = "~"  # sorts behind every digit
_WHOLE_TIME = r"^\d{6}(\.\d{1,6})?$"
"""Times that ``clean_time`` leaves as they are."""


@dataclass(frozen=True)
class Shard:
    """One file of data/images/: its images in order of their rows in the store's shard."""

    name: str
    stored: str
    """The store's shard, of which this is all or a part."""
    rows: Rows
    """Of the table of files."""


@dataclass(frozen=True)
class Studies:
    """The studies whose patient and split are known, in order of key, and their files.

    What goes with images (DICOM SR...) counts as a file of its study, but makes none.
    """

    files: pa.Table
    rows: Rows
    """The studies' files: study by study, within each in order of path."""
    study: Rows
    """The study of each of these, from 0 up."""

    def column(self, name: str) -> pa.Array:
        """Return a column of the studies' files."""
        return picked(self.files[name], self.rows)

    @cached_property
    def is_taken(self) -> Mask:
        """Of each of the studies' files."""
        return is_taken(self.files)[self.rows]

    @cached_property
    def is_image(self) -> Mask:
        """Of each of the studies' files: no companion, taken or not."""
        return ~is_set(self.column("companion"))

    @cached_property
    def starts(self) -> Rows:
        """Where in ``rows`` the files of each study begin."""
        return np.searchsorted(self.study, np.arange(self.study.max(initial=-1) + 1))

    @cached_property
    def times_taken(self) -> tuple[Rows, pa.Array]:
        """Of all files the order in time, and the date; unknown ones stand last."""
        return _times_taken(self.files)

    @cached_property
    def keys(self) -> pa.Array:
        """The study key of each study."""
        return picked(self.files["study_key"], self.rows[self.starts])

    @cached_property
    def num_images(self) -> Rows:
        """Images taken of each study; one without still counts if it has a report."""
        return np.bincount(self.study, weights=self.is_taken, minlength=len(self.starts)).astype(
            int
        )

    @cached_property
    def first(self) -> Rows:
        """The row of the file that tells whose study it is: taken, else an image."""
        return self.rows[self.least(np.where(self.is_taken, 0, np.where(self.is_image, 1, 2)))]

    def least(self, rank: Rows) -> Rows:
        """Return the place in ``rows`` of each study's first file among those of least rank."""
        return np.lexsort((rank, self.study))[self.starts]


@dataclass(frozen=True)
class Reports:
    """The reports that are taken, and the rejects among them."""

    taken: pa.Table
    """``REPORTS``, and the study key of each."""
    rejects: Sequence[dict[str, str | None]]
    rules: Mapping[str, int]
    """How many were matched by which rule."""
    paths: pa.Array
    """All reports: those that are taken and those that are rejected."""


def make_shards(files: pa.Table) -> list[Shard]:
    """Group the images that are taken by the store's shards, sorted by name."""
    rows = np.flatnonzero(is_taken(files))
    stored = numbered(files["shard"])[rows]
    place = whole(files["row"]).fill_null(0).to_numpy()[rows]
    rows = rows[np.lexsort((place, stored))]
    bounds = np.flatnonzero(np.diff(np.sort(stored))) + 1
    columns = [picked(files[name], rows) for name in ("shard", "image_key", "pixels_sha256")]
    shards = []
    for own in np.split(np.arange(len(rows)), bounds) if len(rows) else ():
        span = slice(own[0], own[-1] + 1)
        name, keys, digests = columns[0][span.start].as_py(), columns[1][span], columns[2][span]
        named = shard_name(keys.to_pylist(), digests.to_pylist())
        shards.append(Shard(named, name, rows[span]))
    return sorted(shards, key=lambda shard: shard.name)


def images_table(files: pa.Table, shards: Sequence[Shard]) -> pa.Table:
    """Return data/images.parquet's rows, sorted by image key."""
    empty = np.array([], np.int64)
    rows = np.concatenate([empty, *(shard.rows for shard in shards)])
    sizes = [len(shard.rows) for shard in shards]
    names = pa.array([shard.name for shard in shards], pa.string())
    own = np.repeat(np.arange(len(shards)), sizes)
    places = np.concatenate([empty, *map(np.arange, sizes)]).astype(np.int32)
    order = pc.sort_indices(picked(files["image_key"], rows)).to_numpy()
    table = files.select(IMAGES.names).take(pa.array(rows[order]))
    return replaced(table, {"shard": picked(names, own[order]), "row": places[order]})


def content_digest(images: pa.Table, studies: pa.Table) -> str:
    """Return 16 hex digits of a sha256 of all images and studies, wherever the images lie.

    The same for two archives of the same content, in whatever order their files arrived.
    """
    both = digest(images.drop_columns(["shard", "row"])) + digest(studies)
    return hashlib.sha256(both.encode()).hexdigest()[:16]


def find_studies(files: pa.Table) -> Studies:
    """Return the studies of the judged files."""
    named = is_set(files["study_key"]) & is_set(files["patient_key"]) & is_set(files["split"])
    rows = np.flatnonzero(named)
    study = numbered(files["study_key"])[rows]
    images = np.bincount(study, weights=~is_set(files["companion"])[rows])
    has_image = images[study] > 0
    rows, study = rows[has_image], study[has_image]
    order = np.argsort(study, kind="stable")
    rows, study = rows[order], study[order]
    return Studies(files, rows, np.cumsum(np.diff(study, prepend=study[:1]) > 0))


def known_studies(studies: Studies, keyring: Keyring) -> KnownStudies:
    """Return what reports are matched by.

    Rejected files take part: they still tell whose a folder is. But a copy elsewhere does not pull
    its study's report there.
    """
    keys, is_image = studies.keys, studies.is_image
    is_copy = is_one_of(studies.column("reason"), COPIES)
    is_report = is_one_of(studies.column("companion"), [STRUCTURED_REPORT]) & ~is_copy
    first = studies.rows[studies.least(np.where(is_image, np.where(is_copy, 1, 0), 2))]
    is_own = is_image & ~is_one_of(studies.column("reason"), [Reason.PATIENT_MISMATCH])

    def paths_of(where: Mask) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {key: [] for key in keys.to_pylist()}
        for key, path in _pairs(studies, where, "path"):
            found[key].append(path)
        return found

    def images() -> dict[str, list[str]]:
        elsewhere = paths_of(is_image & is_copy)
        return {key: own or elsewhere[key] for key, own in paths_of(is_image & ~is_copy).items()}

    def by_accession() -> dict[str, str | None]:
        owners: dict[str, set[str]] = defaultdict(set)
        for key, number in _pairs(studies, is_own, "accession_key"):
            owners[number].add(key)
        return {number: next(iter(o)) if len(o) == 1 else None for number, o in owners.items()}

    def dates() -> dict[str, str]:
        ranks, days = studies.times_taken
        place = studies.least(np.where(is_image, ranks[studies.rows], len(days)))
        found = zip(
            keys.to_pylist(), days.take(pa.array(studies.rows[place])).to_pylist(), strict=True
        )
        return {key: day for key, day in found if day != _UNKNOWN_LAST}

    return KnownStudies(
        images=Lazily(images),
        copies=Lazily(lambda: paths_of(is_image & is_copy)),
        first_images=_dict(keys, picked(studies.files["path"], first)),
        study_key=keyring.study,
        accession_key=keyring.accession,
        instance_key=keyring.image,
        patient_key=keyring.patient,
        by_accession=Lazily(by_accession),
        by_instance=Lazily(
            lambda: {key: study for study, key in _pairs(studies, is_own, "instance_key")}
        ),
        patients=Lazily(lambda: _dict(keys, picked(studies.files["patient_key"], studies.first))),
        dates=Lazily(dates),
        structured_reports=Lazily(lambda: paths_of(is_report)),
        structured_elsewhere=Lazily(lambda: _structured_elsewhere(studies, by_accession())),
    )


def _structured_elsewhere(
    studies: Studies, owners: Mapping[str, str | None]
) -> dict[str, list[str]]:
    """Return by study the structured reports that name it by accession number and patient only."""
    is_elsewhere = is_one_of(studies.files["companion"], [STRUCTURED_REPORT])
    is_elsewhere &= is_one_of(studies.files["reason"], [Reason.COMPANION])
    is_elsewhere[studies.rows] = False
    names = "path", "accession_key", "patient_key"
    columns = studies.files.select(names).filter(pa.array(is_elsewhere)).columns
    patients = _dict(studies.keys, picked(studies.files["patient_key"], studies.first))
    found: dict[str, list[str]] = defaultdict(list)
    for path, number, patient in zip(*(c.to_pylist() for c in columns), strict=True):
        owner = owners.get(number)
        if owner is not None and patient == patients[owner]:
            found[owner].append(path)
    return found


def _dict(keys: pa.Array, values: pa.Array) -> dict[str, str]:
    return dict(zip(keys.to_pylist(), values.to_pylist(), strict=True))


def _pairs(studies: Studies, where: Mask, name: str) -> Iterator[tuple[str, str]]:
    """Yield study key and value of the files in ``where`` that have one."""
    values = studies.column(name)
    rows = pa.array(where & is_set(values))
    keys = studies.column("study_key").filter(rows).to_pylist()
    return zip(keys, values.filter(rows).to_pylist(), strict=True)


def without_erased(matches: Matches, files: pa.Table) -> Matches:
    """Refuse the reports of studies of which only files of somebody erased are there, unread."""
    is_erased = is_one_of(files["reason"], [Reason.ERASED])
    if not is_erased.any():
        return matches
    paths = reports_of(matches, files, is_erased)
    rest = kept(matches.table, ~is_one_of(matches.table["path"], paths))
    why = dict.fromkeys(paths, Refusal(Reason.ERASED, tombstones.DETAIL))
    return Matches(rest, {**matches.refused, **why}, matches.notes)


def reports_of(matches: Matches, files: pa.Table, rows: Mask) -> list[str]:
    """Return the reports of the studies of which only the files in ``rows`` are there."""
    keys, others = (files["study_key"].filter(pa.array(mask)) for mask in (rows, ~rows))
    studies = set(keys.to_pylist()) - set(others.to_pylist()) - {None}
    own = pa.array(is_one_of(matches.table["study"], studies))
    paths: list[str] = matches.table["path"].filter(own).to_pylist()
    return paths


def without_keys_of_erased(studies: Studies) -> Studies:
    """Return the same studies, where their files do not say any more who was erased."""
    files = studies.files
    is_erased = is_one_of(files["reason"], [Reason.ERASED])
    if not is_erased.any():
        return studies
    where, none = pa.array(is_erased), pa.scalar(None, pa.string())
    names = ("study", "study_key", "patient_key", "accession_key", "instance_key")
    return find_studies(
        replaced(files, {name: pc.if_else(where, none, whole(files[name])) for name in names})
    )


def judge_reports(
    archive: Archive, matches: Matches, results: pa.Table, several: SeveralReports = "best"
) -> Reports:
    """Choose each study's report, and say why the others are rejected.

    Of several that can be read, the best is taken: one that is final before a preliminary one, then
    by the rule that found it, then the latest by its own date, then a corrected one before a final
    one before the others. Of several that are alike in all this and differ in their text none is
    taken, unless ``several`` is "first": then the first in order. "none": none is taken if any two
    texts differ. A withdrawn report takes back those of its source that were written before it.
    """
    table = matches.table
    place = positions(table["path"], results["path"])
    studies = unordered(table["study"])
    # An only report that can be read needs no choice, and in most archives all are such.
    is_read = ~is_valid(picked(results["reason"], place))
    is_only = (np.bincount(studies)[studies] == 1) & is_read if len(table) else is_read
    rest = Matches(table.filter(pa.array(~is_only)))
    chosen, rules, rejects = _choose(archive, rest, results, several)
    rules += Counter(counted(table["rule"].filter(pa.array(is_only))))
    rejects += [
        reject_row("report", path, refusal.reason, refusal.detail)
        for path, refusal in matches.refused.items()
    ]
    known = pc.unique(pa.concat_arrays([whole(table["path"]), _texts(matches.refused)]))
    unknown = _beyond(_texts(archive.reports), known)
    rejects += [
        reject_row("report", path, Reason.REPORT_WITHOUT_STUDY, "no study to go with it")
        for path in unknown.to_pylist()
    ]
    paths = _beyond(pa.concat_arrays([known, unknown]), _other_documents(archive, results))
    study_of = np.full(len(results), None, object)
    study_of[place[is_only]] = table["study"].filter(pa.array(is_only)).to_pylist()
    rows = positions(pa.array([*chosen.values()], pa.string()), results["path"])
    study_of[rows] = [*chosen]
    owners = pa.array(study_of, pa.string())
    texts = kept(results.append_column("study_key", owners), is_valid(owners))
    return Reports(texts, rejects, dict(rules.most_common()), paths)


def _texts(values: Collection[str]) -> pa.Array:
    return pa.array(list(values), pa.string())


def _beyond(texts: pa.Array, known: Column | Collection[str]) -> pa.Array:
    return texts.filter(pa.array(~is_one_of(texts, known)))


def _choose(
    archive: Archive, matches: Matches, results: pa.Table, several: SeveralReports
) -> tuple[dict[str, str], Counter[str], list[dict[str, str | None]]]:
    """Return the report of each study, how many by which rule, and the rejects."""
    if not len(matches.table):
        return {}, Counter(), []
    rows = positions(matches.table["path"], results["path"])
    read = {result.path: result for result in as_results(results.take(pa.array(rows)))}
    chosen: dict[str, str] = {}
    rejects = []
    rules: Counter[str] = Counter()
    others = _other_documents(archive, results)
    for key, candidates in matches.reports.items():
        usable = sorted(
            (match for match in candidates if read[match.path].reason is None),
            key=lambda match: (_worth(match, read[match.path]), _order(match.path)),
        )
        taken_back = [match for match in usable if _is_taken_back(match, candidates, read)]
        usable = [match for match in usable if match not in taken_back]
        rejects += [
            _report_reject(read[match.path], Reason.REPORT_WITHDRAWN, "it was withdrawn later")
            for match in taken_back
        ]
        rejects += [
            _report_reject(result, Reason(result.reason), result.detail or "")
            for result in (read[match.path] for match in candidates)
            if result.reason is not None and result.path not in others
        ]
        best = [_worth(match, read[match.path]) for match in usable]
        rivals = usable if several == "none" else usable[: best.count(best[0]) if best else 0]
        if several != "first" and len({read[match.path].text for match in rivals}) > 1:
            detail = f"expected one report of its study, found {len(usable)}"
            rejects += [
                _report_reject(read[match.path], Reason.AMBIGUOUS_REPORT, detail)
                for match in usable
            ]
            continue
        for match in usable[:1]:
            chosen[key] = match.path
            rules[match.rule] += 1
        rejects += [
            _report_reject(read[match.path], Reason.SUPERSEDED_REPORT, detail)
            for match in usable[1:]
            for detail in [_instead(read[match.path], read[chosen[key]], usable[0])]
        ]
    return chosen, rules, rejects


def _worth(match: ReportMatch, result: ReportResult) -> tuple[object, ...]:
    return (
        result.status == "preliminary",
        match.rank,
        -int((result.written or "0").ljust(14, "0")),
        {"corrected": 0, "final": 1}.get(result.status or "", 2),
    )


def _order(path: str) -> tuple[str, int]:
    """Return what reports are in order by: row 10 of a table comes behind row 9."""
    file, _, number = path.rpartition("#")
    return (file, int(number)) if file and number.isdecimal() else (path, 0)


def _is_taken_back(
    match: ReportMatch, candidates: Sequence[ReportMatch], read: Mapping[str, ReportResult]
) -> bool:
    """Tell whether a later report from the same kind of source withdraws this one.

    Later is decided by their own dates, as far as both state them; else by their order.
    """
    written = read[match.path].written or ""
    for other in candidates:
        if read[other.path].reason != Reason.REPORT_WITHDRAWN or other.rank != match.rank:
            continue
        stated = read[other.path].written or ""
        length = min(len(written), len(stated))
        if (stated[:length], _order(other.path)) > (written[:length], _order(match.path)):
            return True
    return False


def _instead(result: ReportResult, taken: ReportResult, match: ReportMatch) -> str:
    same = "the same text" if result.text == taken.text else "another text"
    return f"{same} stands for its study: {match.rule}"


def _other_documents(archive: Archive, results: pa.Table) -> Set[str]:
    """Return the DICOM SR that are no reports (of a dose, of CAD): they stay companions."""
    is_other = pa.array(is_one_of(results["reason"], [Reason.NOT_A_REPORT]))
    found = set(results["path"].filter(is_other).to_pylist())
    return found.intersection(archive.images) if found else found


def without_reports(files: pa.Table, reports: Reports) -> pa.Table:
    """Return the files of the archive that are not counted as reports."""
    is_report = is_one_of(files["path"], reports.paths)
    return kept(files, ~is_report)


def _report_reject(result: ReportResult, reason: Reason, detail: str) -> dict[str, str | None]:
    return reject_row(
        "report", result.path, reason, detail, sha256=result.sha256, exception=result.exception
    )


def studies_table(
    studies: Studies, reports: Reports, days_earlier: Callable[[str], int] | None
) -> pa.Table:
    """Return data/studies.parquet's rows, sorted by study key: those with image or report.

    ``days_earlier`` says by how many days a patient's (key) dates are moved; None: no date is
    written.
    """
    report = positions(studies.keys, reports.taken["study_key"])
    rows = np.flatnonzero((studies.num_images > 0) | (report >= 0))
    first, report = studies.first[rows], report[rows]
    patient = picked(studies.files["patient_key"], first)
    # A study is as old as the first of its images that are taken, of its files if none is.
    ranks, days = studies.times_taken
    counts = studies.is_taken | (studies.num_images == 0)[studies.study]
    when = studies.rows[studies.least(np.where(counts, ranks[studies.rows], len(ranks)))][rows]
    patients = unordered(patient)
    order = np.lexsort((rows, ranks[when], patients))
    is_first = np.diff(patients[order], prepend=-1) != 0
    starts = np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))
    day = _days(days.take(pa.array(when)))
    of_first, place = np.empty_like(order), np.empty_like(order)
    of_first[order], place[order] = order[starts], np.arange(len(order)) - starts
    since = day - day[of_first]
    columns = {
        "study_key": studies.keys.take(pa.array(rows)),
        "patient_key": patient,
        "split": picked(studies.files["split"], first),
        "study_order": pa.array(place, pa.int32()),
        "days_since_first": pa.array(since.astype(np.int64), mask=np.isnat(since)).cast(pa.int32()),
        "study_date": _shown(day, patient, days_earlier),
        "num_images": pa.array(studies.num_images[rows], pa.int32()),
        "report": picked(reports.taken["text"], report),
        "report_sha256": picked(reports.taken["sha256"], report),
        "identity_flags": _flags(picked(reports.taken["flags"], report)),
    }
    return pa.table(columns, schema=STUDIES)


def demographics_table(studies: Studies, table: pa.Table, people: pa.Table) -> pa.Table:
    """Return data/demographics.parquet's rows: those of ``table``, which are studies.parquet's.

    The archive's own ``people`` (PEOPLE, keyed) go before the headers. What the headers of a
    patient's files say of the sex, or those of a study's of the age, counts if all that say
    anything say the same.
    """
    headers = studies.files.select(["study_key", "patient_key", "sex", "age_band"])
    headers = headers.take(pa.array(studies.rows))
    patient, study = table["patient_key"], table["study_key"]
    row = positions(patient, people["patient"])
    _, days = studies.times_taken
    first = picked(days, studies.first[positions(study, studies.keys)])
    known = (picked(people["age"], row), picked(people["year"], row), first)
    bands = [_band(*of_one) for of_one in zip(*(one.to_pylist() for one in known), strict=True)]
    stated_sex = _stated(headers, "patient_key", "sex", patient)
    stated_age = _stated(headers, "study_key", "age_band", study)
    columns = {
        "study_key": study,
        "patient_key": patient,
        "split": table["split"],
        "sex": pc.coalesce(picked(people["sex"], row), stated_sex),
        "age_band": pc.coalesce(pa.array(bands, pa.string()), stated_age),
    }
    return pa.table(columns, schema=DEMOGRAPHICS)


def _stated(headers: pa.Table, by: str, name: str, keys: Column) -> pa.Array:
    """Return what the headers of each of ``keys`` say, null where they say nothing or differ."""
    said = headers.select([by, name]).filter(pa.array(is_set(headers[name])))
    pairs = said.group_by([by, name]).aggregate([])
    differ = counted(pairs[by])
    sure = pairs.filter(pa.array(is_one_of(pairs[by], [k for k, n in differ.items() if n == 1])))
    return picked(sure[name], positions(keys, sure[by]))


def _band(age: int | None, year: int | None, day: str | None) -> str | None:
    """Return the band at a study of who was ``age`` in ``year``; both are null if unknown."""
    if age is None or year is None or day is None or day == _UNKNOWN_LAST:
        return None
    later = int(day[:4]) - year
    if age >= MASKED_AGE:  # whoever is older than 89 has this age: earlier years say nothing
        return person.OLDEST if later >= 0 else None
    return person.band(age + later) or None


def _times_taken(files: pa.Table) -> tuple[Rows, pa.Array]:
    """Return the order in time of the files, and their dates; unknown ones stand last.

    Date and time are by the archive's table, else by the header.
    """
    listed = whole(files["listed_time"])
    is_whole = pc.match_substring_regex(listed, _WHOLE_TIME)
    none = pa.scalar(None, pa.string())
    times = pc.if_else(is_whole, listed, mapped(pc.if_else(is_whole, none, listed), clean_time))
    dates = mapped(files["listed_date"], clean_date)
    day, time = (
        pc.coalesce(_or_null(listed), _or_null(whole(header)), _UNKNOWN_LAST)
        for listed, header in ((dates, files["study_date"]), (times, files["study_time"]))
    )
    return numbered(pc.binary_join_element_wise(day, time, "")), day


def _or_null(column: pa.Array) -> pa.Array:
    return pc.if_else(pc.not_equal(column, ""), column, pa.scalar(None, pa.string()))


def _days(dates: pa.Array) -> NDArray[np.datetime64]:
    """Return yyyymmdd as days; NaT for unknown ones."""
    known = mapped(dates, lambda d: None if d == _UNKNOWN_LAST else f"{d[:4]}-{d[4:6]}-{d[6:]}")
    days: NDArray[np.datetime64] = known.cast(pa.date32()).to_numpy(zero_copy_only=False)
    return days.astype("datetime64[D]")


def _shown(
    days: NDArray[np.datetime64], patients: pa.Array, days_earlier: Callable[[str], int] | None
) -> pa.Array:
    """Return the dates to write, yyyymmdd."""
    if days_earlier is None:
        return pa.nulls(len(days), pa.string())
    encoded = patients.dictionary_encode()
    moved = np.array([days_earlier(key) for key in encoded.dictionary.to_pylist()], np.int64)
    shown = days - moved[encoded.indices.to_numpy()] if len(days) else days
    return pc.strftime(pa.array(shown, pa.date32()), "%Y%m%d")


def _flags(found: pa.Array) -> pa.Array:
    """Return which kinds of identifying text each report has, once each, sorted."""
    lengths = found.value_lengths().fill_null(0).to_numpy().copy()
    some = np.flatnonzero(lengths)
    flags = [sorted(set(own)) for own in found.take(pa.array(some)).to_pylist()]
    lengths[some] = list(map(len, flags))
    offsets = pa.array(np.append(0, np.cumsum(lengths)), pa.int32())
    every = pa.array([kind for own in flags for kind in own], pa.string())
    return pa.ListArray.from_arrays(offsets, every)


def labels_table(
    files: pa.Table, labels: pa.Table, keyring: Keyring, studies: pa.Table
) -> pa.Table:
    """Return data/labels.parquet's rows: the archive's own labels of the studies that are taken.

    A study's id is that in its files' paths; where those name none, ids are hashed to compare.
    """
    named = kept(files.select(["study", "study_key"]), is_set(files["study"]))
    place = positions(labels["study"], named["study"])
    keys = picked(named["study_key"], place)
    if len(named) < len(files):
        hashed = mapped(labels["study"], keyring.study)
        keys = pc.coalesce(keys, hashed)
    rows = positions(studies["study_key"], keys)
    found = labels.take(pa.array(rows[rows >= 0]))
    own = studies["study_key"].filter(pa.array(rows >= 0))
    columns = [own, *(found[name] for name in CHEXPERT_LABELS)]
    return pa.table(columns, schema=LABELS)


def study_rejects(
    files: pa.Table, studies: Studies, reports: Reports
) -> list[dict[str, str | None]]:
    """Return a row for each study that has neither an image nor a report, or no split."""
    has_report = positions(studies.keys, reports.taken["study_key"]) >= 0
    counted_in = studies.keys.filter(pa.array(has_report | (studies.num_images > 0)))
    known = studies_in(files)
    left = known.filter(pa.array(positions(known, counted_in) < 0)).to_pylist()
    detail = "every file of the study was turned away"
    return [reject_row("study", key, Reason.STUDY_EMPTY, detail) for key in left]


def studies_in(files: pa.Table) -> pa.Array:
    """Return the keys of all studies of which there is more than what goes with images."""
    is_image = pa.array(~is_set(files["companion"]))
    return pc.unique(whole(files["study_key"].filter(is_image)).drop_null())


def rejects_table(files: pa.Table, others: Sequence[dict[str, str | None]]) -> pa.Table:
    """Return data/rejects.parquet's rows, sorted by kind and file."""
    reason = files["reason"]
    rejected = files.filter(pa.array(is_valid(reason) & ~is_one_of(reason, [Reason.COMPANION])))
    columns = {
        "kind": pa.repeat("file", len(rejected)),
        "file": rejected["path"],
        "stage": pa.repeat(STAGE, len(rejected)),
        "reason": rejected["reason"],
        "detail": rejected["detail"],
        "exception": rejected["exception"],
        "remedy": mapped(rejected["reason"], lambda code: Reason(code).remedy),
        "sha256": rejected["file_sha256"],
    }
    rows = [[row[name] for row in others] for name in REJECTS.names]
    beside = pa.table(list(map(pa.array, rows, REJECTS.types)), schema=REJECTS)
    both = pa.concat_tables([pa.table(columns, schema=REJECTS), beside])
    return both.sort_by([("kind", "ascending"), ("file", "ascending")])


def reject_row(
    kind: str,
    file: str,
    reason: Reason,
    detail: str,
    *,
    sha256: str | None = None,
    exception: str | None = None,
) -> dict[str, str | None]:
    """Return one row of rejects.parquet."""
    return {
        "kind": kind,
        "file": file,
        "stage": STAGE,
        "reason": reason.value,
        "detail": detail,
        "exception": exception,
        "remedy": reason.remedy,
        "sha256": sha256,
    }
