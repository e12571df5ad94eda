"""The stage's tables, made of the judged files; rows sorted by key."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property

import pyarrow as pa

from lapvqa.dicom.header import clean_date, clean_time
from lapvqa.dicom.reasons import COPIES, Reason
from lapvqa.identity import Keyring
from lapvqa.images.shards import shard_name
from lapvqa.ingest.archives.protocol import Archive
from lapvqa.ingest.reports import ReportResult
from lapvqa.ingest.verdicts import Candidate, accepted
from lapvqa.schemas import CHEXPERT_LABELS, IMAGES, LABELS, REJECTS, STUDIES

STAGE = "ingest"
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
        return (self.images or self.files)[0]


@dataclass(frozen=True)
class Reports:
    """The reports that are taken, by study key, and the rejects among them."""

    texts: Mapping[str, ReportResult]
    rejects: Sequence[dict[str, str | None]]


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

    Companions are not among them: a structured report elsewhere does not tell a study's folder.
    """
    files: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        if candidate.result.companion is not None:
            continue
        if candidate.result.study_key and candidate.result.patient_key and candidate.split:
            files[candidate.result.study_key].append(candidate)
    return [Study(key, files[key]) for key in sorted(files)]


def match_reports(
    archive: Archive, studies: Sequence[Study], study_key: Callable[[str], str]
) -> dict[str, str]:
    """Return the path of each study's report by study key; ``study_key`` hashes a study's id.

    Rejected files take part in the matching: they still tell whose a folder is. But a copy
    elsewhere does not pull its study's report there.
    """
    places: dict[str, list[str]] = {}
    copies: dict[str, list[str]] = {}
    for study in studies:
        elsewhere = [file.result.path for file in study.files if file.reason in COPIES]
        own = [file.result.path for file in study.files if file.reason not in COPIES]
        places[study.key], copies[study.key] = own or elsewhere, elsewhere
    return archive.match_reports(places, copies, study_key=study_key)


def judge_reports(
    archive: Archive, matches: Mapping[str, str], results: Mapping[str, ReportResult]
) -> Reports:
    """Divide the reports into those that are taken and those that are rejected."""
    texts: dict[str, ReportResult] = {}
    rejects = []
    for key, path in matches.items():
        result = results[path]
        if result.reason is not None:
            rejects.append(_report_reject(result, Reason(result.reason), result.detail or ""))
        else:
            texts[key] = result
    matched = set(matches.values())
    rejects += [
        reject_row("report", path, Reason.REPORT_WITHOUT_STUDY, "no study to go with it")
        for path in archive.reports
        if path not in matched
    ]
    return Reports(texts, rejects)


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
    known = {c.result.study_key for c in candidates if c.result.study_key is not None}
    detail = "every file of the study was turned away"
    return [reject_row("study", key, Reason.STUDY_EMPTY, detail) for key in known - kept]


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
        if c.reason is not None
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
