"""Read each report of the archive once, search it for identities, and keep it.

Finished work lies beside that of the images (``result_store``), in ``reports-<digest>/``; a report
counts as known as long as its stamp (size and time, or size and checksum within a zip or a table)
is the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pyarrow as pa

from lapvqa import code, storage
from lapvqa.dicom.reasons import TRANSIENT, Reason
from lapvqa.errors import DicomError, SchemaError
from lapvqa.ingest.archives.protocol import Archive
from lapvqa.ingest.result_store import open_folder
from lapvqa.recorder import Recorder
from lapvqa.text import phi

Policy = Literal["flag", "reject"]
"""Treatment of a report with text that may identify somebody: ingest.deid.reports."""

UTF8_NAMES = frozenset({"utf-8", "dicom"})
"""Encodings of a report that is in UTF-8, or that names its own (DICOM)."""

REPORTS = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("stamp", pa.int64(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("exception", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("text", pa.string()),
        pa.field("encoding", pa.string()),
        pa.field("form", pa.string()),
        pa.field("status", pa.string()),
        pa.field("written", pa.string()),
        pa.field("flags", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportResult:
    """Columns of ``REPORTS``; ``reason`` is None if the report could be read."""

    path: str
    size: int = 0
    stamp: int = 0
    reason: str | None = None
    detail: str | None = None
    exception: str | None = None
    sha256: str | None = None
    text: str | None = None
    encoding: str | None = None
    form: str | None = None
    status: str | None = None
    written: str | None = None
    flags: Sequence[str] | None = None
    """Kinds of identifying text, as many times as they were found."""
    held_in: str = ""
    """File of the store that holds this row."""


def read_reports(
    archive: Archive, paths: Sequence[str], folder: Path, policy: Policy, recorder: Recorder
) -> dict[str, ReportResult]:
    """Return the result of each report at ``paths``; new ones are read and kept in ``folder``.

    Under the policy "reject", a text that may identify somebody is not even kept there.
    """
    stored = _load(folder, recorder)
    known = {result.path: result for result in stored}
    # A row keeps its text when rows before it come or go; only its number is another.
    rows = {_content(r.path, r.size, r.stamp): r for r in stored if "#" in r.path}
    results: dict[str, ReportResult] = {}
    new: list[ReportResult] = []
    for done, path in enumerate(paths, start=1):
        try:
            size, stamp = archive.report_stamp(path)
        except OSError as error:
            detail = f"expected a readable report: {error.strerror}"
            results[path] = ReportResult(path=path, reason=Reason.UNREADABLE.value, detail=detail)
            continue
        result = known.get(path)
        if result is None or (result.size, result.stamp) != (size, stamp):
            result = rows.get(_content(path, size, stamp)) if "#" in path else None
        if result is None:
            new.append(_read(archive, ReportResult(path=path, size=size, stamp=stamp), policy))
            recorder.progress(done, len(paths), unit="reports")
        else:
            results[path] = replace(result, path=path)
    if results:
        recorder.say(f"{len(results)} reports are known from before, {len(new)} are new")
    results |= {result.path: result for result in _write(folder, new)}
    _prune(folder, {result.held_in for result in results.values()})
    return results


def open_reports(
    work_dir: Path, source: Path, archive: Archive, policy: Policy, stated: str = ""
) -> Path:
    """Open the folder of finished reports for this archive, its layout's code and the policy.

    ``stated`` is a digest of where local.yaml says that reports are.
    """
    described: dict[str, object] = {
        "source": str(source.resolve()),
        "policy": policy,
        "stated": stated,
        "code": code.digest(type(archive).__module__, phi.__name__),
    }
    return open_folder(work_dir, "reports", described)


def flag_counts(results: Iterable[ReportResult]) -> dict[str, int]:
    """Return how many reports hold identifying text, by kind."""
    counts: dict[str, int] = {}
    for result in results:
        for kind in set(result.flags or ()):
            counts[kind] = counts.get(kind, 0) + 1
    return dict(sorted(counts.items()))


def _content(path: str, size: int, stamp: int) -> tuple[str, int, int]:
    return path.rpartition("#")[0], size, stamp


def _read(archive: Archive, unread: ReportResult, policy: Policy) -> ReportResult:
    try:
        report = archive.read_report(unread.path)
    except DicomError as error:
        return replace(unread, reason=error.reason, detail=error.message, exception=error.exception)
    flags = [span.kind for span in phi.find_phi(report.text)]
    result = replace(
        unread, sha256=report.sha256, encoding=report.encoding, form=report.form,
        status=report.status, written=report.written, flags=flags,
    )  # fmt: skip
    if flags and policy == "reject":
        kinds = ", ".join(sorted(set(flags)))
        detail = f"expected no identifying text, found {kinds}"
        return replace(result, reason=Reason.IDENTITY_IN_REPORT.value, detail=detail)
    return replace(result, text=report.text)


def _load(folder: Path, recorder: Recorder) -> list[ReportResult]:
    results = []
    for path in sorted(folder.glob("*.parquet")):
        try:
            table = storage.read_table(path, REPORTS, made_by="ingest")
        except SchemaError as error:
            recorder.say(f"dropped damaged reports of finished work: {error.message}")
            path.unlink()
            continue
        columns = [table[name].to_pylist() for name in REPORTS.names]
        results += [
            ReportResult(**dict(zip(REPORTS.names, values, strict=True)), held_in=path.name)
            for values in zip(*columns, strict=True)
        ]
    return [result for result in results if result.reason not in TRANSIENT]


def _write(folder: Path, results: Sequence[ReportResult]) -> list[ReportResult]:
    if not results:
        return []
    facts = json.dumps([(r.path, r.size, r.stamp, r.sha256) for r in results])
    name = f"{hashlib.sha256(facts.encode()).hexdigest()[:16]}.parquet"
    columns = {field: [getattr(result, field) for result in results] for field in REPORTS.names}
    storage.write_table(folder / name, pa.table(columns, schema=REPORTS), REPORTS)
    return [replace(result, held_in=name) for result in results]


def _prune(folder: Path, needed: set[str]) -> None:
    for path in folder.glob("*.parquet"):
        if path.name not in needed:
            path.unlink()
