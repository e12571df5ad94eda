"""The stage's tables, made of the judged files; rows sorted by key."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import date
from functools import cached_property

import pyarrow as pa

from lapvqa.dicom.header import clean_date, clean_time
from lapvqa.dicom.reasons import COPIES, Reason
from lapvqa.identity import Keyring
from lapvqa.images.shards import shard_name
from lapvqa.ingest.archives.protocol import Archive, KnownStudies, Matches, ReportMatch
from lapvqa.ingest.reports import ReportResult
from lapvqa.ingest.verdicts import Candidate, accepted
from lapvqa.params import SeveralReports
from lapvqa.schemas import CHEXPERT_LABELS, IMAGES, LABELS, REJECTS, STUDIES

STAGE = "ingest"
STRUCTURED_REPORT = "structured_report"
"""Value of column ``companion`` in the stored results."""
_UNKNOWN_LAST = "~"  # sorts behind every digit


@dataclass(frozen=True)
class Shard:
    """One file of data/images/: its images in order of their rows in the store's shard."""

    name: str
    stored: str
    """The store's shard, of which this is all or a part."""
    images: Sequence[Candidate]


@dataclass(frozen=True)
class Study:
    """A study of the archive: files whose study, patient and split are known."""

    key: str
    files: Sequence[Candidate]

    @cached_property
    def images(self) -> list[Candidate]:
        """The files that are taken; a study without one still counts if it has a report."""
        return accepted(self.files)

    @property
    def first(self) -> Candidate:
        """The file that tells whose study it is."""
        return (self.images or [f for f in self.files if not f.result.companion])[0]


@dataclass(frozen=True)
class Reports:
    """The reports that are taken, by study key, and the rejects among them."""

    texts: Mapping[str, ReportResult]
    rejects: Sequence[dict[str, str | None]]
    rules: Mapping[str, int]
    """How many were matched by which rule."""
    paths: Set[str]
    """All reports: those that are taken and those that are rejected."""


def make_shards(candidates: Sequence[Candidate]) -> list[Shard]:
    """Group the images that are taken by the store's shards, sorted by name."""
    stored: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in accepted(candidates):
        stored[str(candidate.result.shard)].append(candidate)
    shards = []
    for name, images in stored.items():
        images.sort(key=lambda image: image.result.row or 0)
        keys = [str(image.result.image_key) for image in images]
        digests = [str(image.result.pixels_sha256) for image in images]
        shards.append(Shard(shard_name(keys, digests), name, images))
    return sorted(shards, key=lambda shard: shard.name)


def images_table(shards: Sequence[Shard]) -> pa.Table:
    """Return data/images.parquet's rows, sorted by image key."""
    rows = []
    for shard in shards:
        for row, image in enumerate(shard.images):
            known = {name: getattr(image.result, name, None) for name in IMAGES.names}
            placed = {"split": image.split, "shard": shard.name, "row": row}
            viewed = {"view": image.view, "view_source": image.view_source}
            rows.append({**known, **placed, **viewed})
    rows.sort(key=lambda row: str(row["image_key"]))
    return pa.Table.from_pylist(rows, schema=IMAGES)


def content_digest(images: pa.Table, studies: pa.Table) -> str:
    """Return 16 hex digits of a sha256 of all images and studies, wherever the images lie.

    The same for two archives of the same content, in whatever order their files arrived.
    """
    digest = hashlib.sha256()
    for table in (images.drop_columns(["shard", "row"]), studies):
        for row in table.to_pylist():
            digest.update(json.dumps(list(row.values())).encode())
    return digest.hexdigest()[:16]


def find_studies(candidates: Sequence[Candidate]) -> list[Study]:
    """Return the studies with a patient and a split, each with all its files in order of path.

    What goes with images (DICOM SR...) counts as a file of its study, but makes none.
    """
    files: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        if candidate.result.study_key and candidate.result.patient_key and candidate.split:
            files[candidate.result.study_key].append(candidate)
    return [
        Study(key, files[key])
        for key in sorted(files)
        if any(not file.result.companion for file in files[key])
    ]


def known_studies(studies: Sequence[Study], keyring: Keyring) -> KnownStudies:
    """Return what reports are matched by.

    Rejected files take part: they still tell whose a folder is. But a copy elsewhere does not pull
    its study's report there.
    """
    places: dict[str, list[str]] = {}
    copies: dict[str, list[str]] = {}
    accessions: dict[str, set[str]] = defaultdict(set)
    instances: dict[str, str] = {}
    dates: dict[str, str] = {}
    structured: dict[str, list[str]] = {}
    for study in studies:
        images = [file for file in study.files if not file.result.companion]
        elsewhere = [file.result.path for file in images if file.reason in COPIES]
        own = [file.result.path for file in images if file.reason not in COPIES]
        places[study.key], copies[study.key] = own or elsewhere, elsewhere
        for file in images:
            if file.reason is Reason.PATIENT_MISMATCH:
                continue
            if file.result.accession_key:
                accessions[file.result.accession_key].add(study.key)
            if file.result.instance_key:
                instances[file.result.instance_key] = study.key
        day = min(map(_taken_at, images))[0]
        if day != _UNKNOWN_LAST:
            dates[study.key] = day
        structured[study.key] = [
            file.result.path
            for file in study.files
            if file.result.companion == STRUCTURED_REPORT and file.reason not in COPIES
        ]
    return KnownStudies(
        images=places,
        copies=copies,
        study_key=keyring.study,
        accession_key=keyring.accession,
        instance_key=keyring.image,
        by_accession={
            key: next(iter(own)) if len(own) == 1 else None for key, own in accessions.items()
        },
        by_instance=instances,
        patients={study.key: str(study.first.result.patient_key) for study in studies},
        dates=dates,
        structured_reports=structured,
    )


def judge_reports(
    archive: Archive,
    matches: Matches,
    results: Mapping[str, ReportResult],
    several: SeveralReports = "best",
) -> Reports:
    """Choose each study's report, and say why the others are rejected.

    Of several that can be read, the best is taken: one that is final before a preliminary one, then
    by the rule that found it, then the latest by its own date, a corrected one before the others,
    the first by path. ``none``: none is taken if their texts differ.
    """
    texts: dict[str, ReportResult] = {}
    rejects = []
    rules: Counter[str] = Counter()
    others = _other_documents(archive, results)
    for key, candidates in matches.reports.items():
        usable = sorted(
            (match for match in candidates if results[match.path].reason is None),
            key=lambda match: _worth(match, results[match.path]),
        )
        rejects += [
            _report_reject(result, Reason(result.reason), result.detail or "")
            for result in (results[match.path] for match in candidates)
            if result.reason is not None and result.path not in others
        ]
        differ = len({results[match.path].text for match in usable}) > 1
        if several == "none" and differ:
            detail = f"expected one report of its study, found {len(usable)}"
            rejects += [
                _report_reject(results[match.path], Reason.AMBIGUOUS_REPORT, detail)
                for match in usable
            ]
            continue
        for match in usable[:1]:
            texts[key] = results[match.path]
            rules[match.rule] += 1
        rejects += [
            _report_reject(results[match.path], Reason.SUPERSEDED_REPORT, detail)
            for match in usable[1:]
            for detail in [_instead(results[match.path], texts[key], usable[0])]
        ]
    rejects += [
        reject_row("report", path, refusal.reason, refusal.detail)
        for path, refusal in matches.refused.items()
    ]
    known = {match.path for own in matches.reports.values() for match in own}
    rejects += [
        reject_row("report", path, Reason.REPORT_WITHOUT_STUDY, "no study to go with it")
        for path in archive.reports
        if path not in known and path not in matches.refused
    ]
    paths = {*archive.reports, *known, *matches.refused} - others
    return Reports(texts, rejects, dict(rules.most_common()), paths)


def _worth(match: ReportMatch, result: ReportResult) -> tuple[object, ...]:
    return (
        result.status == "preliminary",
        match.rank,
        -int((result.written or "0").ljust(14, "0")),
        result.status != "corrected",
        match.path,
    )


def _instead(result: ReportResult, taken: ReportResult, match: ReportMatch) -> str:
    same = "the same text" if result.text == taken.text else "another text"
    return f"{same} stands for its study: {match.rule}"


def _other_documents(archive: Archive, results: Mapping[str, ReportResult]) -> Set[str]:
    """Return the DICOM SR that are no reports (of a dose, of CAD): they stay companions."""
    found = {path for path, result in results.items() if result.reason == Reason.NOT_A_REPORT}
    return found.intersection(archive.images) if found else found


def without_reports(candidates: Sequence[Candidate], reports: Reports) -> list[Candidate]:
    """Return the files of the archive that are not counted as reports."""
    return [file for file in candidates if file.result.path not in reports.paths]


def _report_reject(result: ReportResult, reason: Reason, detail: str) -> dict[str, str | None]:
    return reject_row(
        "report", result.path, reason, detail, sha256=result.sha256, exception=result.exception
    )


def studies_table(
    studies: Sequence[Study], reports: Reports, days: Callable[[str, date], date | None]
) -> pa.Table:
    """Return data/studies.parquet's rows, sorted by study key: those with image or report.

    ``days`` gives the date to write for a patient's (key) study.
    """
    taken_at = {study.key: min(map(_taken_at, study.images or study.files)) for study in studies}
    studies_of: dict[str, list[Study]] = defaultdict(list)
    for study in studies:
        if study.images or study.key in reports.texts:
            studies_of[str(study.first.result.patient_key)].append(study)
    rows = []
    for patient, own in studies_of.items():
        own.sort(key=lambda study: (taken_at[study.key], study.key))
        first_day = _date(taken_at[own[0].key])
        for order, study in enumerate(own):
            day = _date(taken_at[study.key])
            report = reports.texts.get(study.key)
            shown = days(patient, day) if day else None
            rows.append(
                {
                    "study_key": study.key,
                    "patient_key": patient,
                    "split": study.first.split,
                    "study_order": order,
                    "days_since_first": (day - first_day).days if day and first_day else None,
                    "study_date": shown.strftime("%Y%m%d") if shown else None,
                    "num_images": len(study.images),
                    "report": report.text if report else None,
                    "report_sha256": report.sha256 if report else None,
                    "identity_flags": sorted(set(report.flags or ())) if report else [],
                }
            )
    rows.sort(key=lambda row: str(row["study_key"]))
    return pa.Table.from_pylist(rows, schema=STUDIES)


def _taken_at(candidate: Candidate) -> tuple[str, str]:
    """Return date and time by the archive's table, else by the header; unknown ones sort last."""
    listed, result = candidate.listed, candidate.result
    day = clean_date(listed.date or "") or result.study_date or _UNKNOWN_LAST
    time = clean_time(listed.time or "") or result.study_time or _UNKNOWN_LAST
    return day, time


def _date(taken_at: tuple[str, str]) -> date | None:
    day = taken_at[0]
    return None if day == _UNKNOWN_LAST else date(int(day[:4]), int(day[4:6]), int(day[6:]))


def labels_table(archive: Archive, keyring: Keyring, studies: pa.Table) -> pa.Table:
    """Return data/labels.parquet's rows: the archive's own labels of the studies that are taken."""
    taken = set(studies["study_key"].to_pylist())
    labels: dict[str, list[int | None]] = {}
    for study_id, values in archive.labels():
        key = keyring.study(study_id)
        if key in taken:
            labels.setdefault(key, values)
    rows = [
        {"study_key": key, **dict(zip(CHEXPERT_LABELS, labels[key], strict=True))}
        for key in sorted(labels)
    ]
    return pa.Table.from_pylist(rows, schema=LABELS)


def study_rejects(
    candidates: Sequence[Candidate], studies: Sequence[Study], reports: Reports
) -> list[dict[str, str | None]]:
    """Return a row for each study that has neither an image nor a report, or no split."""
    kept = {study.key for study in studies if study.images or study.key in reports.texts}
    known = studies_in(candidates)
    detail = "every file of the study was turned away"
    return [reject_row("study", key, Reason.STUDY_EMPTY, detail) for key in known - kept]


def studies_in(candidates: Sequence[Candidate]) -> Set[str]:
    """Return the keys of all studies of which there is more than what goes with images."""
    return {
        c.result.study_key
        for c in candidates
        if c.result.study_key is not None and not c.result.companion
    }


def rejects_table(
    candidates: Sequence[Candidate], others: Sequence[dict[str, str | None]]
) -> pa.Table:
    """Return data/rejects.parquet's rows, sorted by kind and file."""
    rows = [
        reject_row(
            "file",
            c.result.path,
            c.reason,
            c.detail,
            sha256=c.result.file_sha256,
            exception=c.result.exception,
        )
        for c in candidates
        if c.reason not in (None, Reason.COMPANION)
    ]
    ordered = sorted([*rows, *others], key=lambda row: (str(row["kind"]), str(row["file"])))
    return pa.Table.from_pylist(ordered, schema=REJECTS)


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
