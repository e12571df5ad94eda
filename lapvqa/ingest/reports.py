"""Read each report of the archive once, search it for identities, and keep it.

Finished work lies beside that of the images (``result_store``), in ``reports-<digest>/``; a report
counts as known as long as its stamp (size and time, or size and checksum within a zip or a table)
is the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lapvqa import code, storage
from lapvqa.dicom.reasons import TRANSIENT, Reason
from lapvqa.errors import DicomError, SchemaError
from lapvqa.ingest.archives.found import Files
from lapvqa.ingest.archives.protocol import Archive, ReportText, stamps_of, written_of
from lapvqa.ingest.columns import (
    Column,
    counted,
    digest,
    in_order,
    is_one_of,
    is_valid,
    kept,
    positions,
    taken,
    whole,
)
from lapvqa.ingest.plan import known_line
from lapvqa.ingest.result_store import open_folder
from lapvqa.recorder import Recorder
from lapvqa.schemas import INVENTORY
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


HELD = REPORTS.append(pa.field("held_in", pa.string(), nullable=False))
"""Reports, and the file of the store that holds each."""


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


def as_table(results: Sequence[ReportResult]) -> pa.Table:
    """Return results as rows of ``HELD``."""
    columns = ([getattr(result, name) for result in results] for name in HELD.names)
    return pa.table(list(map(pa.array, columns, HELD.types)), schema=HELD)


def as_results(table: pa.Table) -> list[ReportResult]:
    """Return the rows of a table that has the columns of ``HELD``."""
    columns = [table[name].to_pylist() for name in HELD.names]
    return [
        ReportResult(**dict(zip(HELD.names, values, strict=True)))
        for values in zip(*columns, strict=True)
    ]


def read_reports(
    archive: Archive,
    files: Files,
    paths: Column,
    folder: Path,
    policy: Policy,
    recorder: Recorder,
) -> pa.Table:
    """Return a row of ``HELD`` for each report at ``paths``; new ones are read, kept in ``folder``.

    Under the policy "reject", a text that may identify somebody is not even kept there.
    """
    stored = _load(folder, recorder)
    size, stamp, faults = _stamps(archive, files, paths)
    place = positions(paths, stored["path"])
    is_known = (place >= 0) & ~is_valid(faults)
    for name, now in (("size", size), ("stamp", stamp)):
        is_known &= np.append(whole(stored[name]).to_numpy(), -1)[place] == now
    rest = np.flatnonzero(~is_known)
    asked = zip(
        *(column.take(pa.array(rest)).to_pylist() for column in (whole(paths), faults)),
        size[rest].tolist(), stamp[rest].tolist(), strict=True,
    )  # fmt: skip
    moved = _by_content(stored) if len(rest) else {}
    found: list[ReportResult] = []
    new: list[ReportResult] = []
    for done, (path, fault, *own) in enumerate(asked, start=1):
        known = moved.get((path.rpartition("#")[0], *own)) if "#" in path else None
        if fault is not None:
            reason = Reason.UNREADABLE.value
            found.append(ReportResult(path=path, reason=reason, detail=fault))
        elif known is not None:
            found.append(replace(known, path=path))
        else:
            unread = ReportResult(path=path, size=own[0], stamp=own[1])
            new.append(read_report(archive.read_report, unread, policy))
            recorder.progress(done, len(rest), unit="reports")
    current = taken(stored, place[is_known])
    if number := len(current) + len(found):
        recorder.say(known_line(number, len(new), "report"))
    if rest.size:
        current = pa.concat_tables([current, as_table(found), _write(folder, new)])
    current = _shed(folder, current)
    _prune(folder, set(pc.unique(current["held_in"]).to_pylist()))
    return in_order(current).combine_chunks()


def _stamps(
    archive: Archive, files: Files, paths: Column
) -> tuple[NDArray[np.int64], NDArray[np.int64], pa.Array]:
    """Return size and stamp of each report, and why it has none.

    Of a file the inventory has asked already, of reports that a layout remembers the layout; other
    rows and members are asked for in their archive.
    """
    facts, remembered = files.listed.select(INVENTORY.names), stamps_of(archive)
    if len(remembered):
        facts = pa.concat_tables([facts, remembered])
    rows = positions(paths, facts["path"])
    size, stamp = (np.append(whole(facts[n]).to_numpy(), 0)[rows] for n in ("size", "mtime_ns"))
    faults = np.full(len(rows), None, object)
    not_listed = np.flatnonzero(rows < 0)
    asked = paths.take(pa.array(not_listed)).to_pylist()
    for row, path in zip(not_listed, asked, strict=True):
        try:
            size[row], stamp[row] = archive.report_stamp(path)
        except OSError as error:
            faults[row] = f"expected a readable report: {error.strerror}"
    return size, stamp, pa.array(faults, pa.string())


def _by_content(stored: pa.Table) -> dict[tuple[str, int, int], ReportResult]:
    """Return the rows of tables by table, length and digest.

    A row keeps its text when rows before it come or go; only its number is another.
    """
    of_tables = as_results(stored.filter(pc.match_substring(stored["path"], "#")))
    return {(r.path.rpartition("#")[0], r.size, r.stamp): r for r in of_tables}


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


def flag_counts(results: pa.Table) -> dict[str, int]:
    """Return how many reports hold identifying text, by kind."""
    flagged = results.filter(pc.greater(pc.list_value_length(results["flags"]), 0))
    counts = Counter(kind for own in flagged["flags"].to_pylist() for kind in set(own))
    return dict(sorted(counts.items()))


def read_report(
    read: Callable[[str], ReportText], unread: ReportResult, policy: Policy
) -> ReportResult:
    """Return ``unread`` with what ``read`` finds at its path, searched for identities."""
    try:
        report = read(unread.path)
    except DicomError as error:
        return replace(
            unread, reason=error.reason, detail=error.message, exception=error.exception,
            written=written_of(error),
        )  # fmt: skip
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


def _load(folder: Path, recorder: Recorder) -> pa.Table:
    tables = []
    for path in sorted(folder.glob("*.parquet")):
        try:
            table = storage.read_table(path, REPORTS, made_by="ingest")
        except SchemaError as error:
            recorder.say(f"dropped damaged reports of finished work: {error.message}")
            path.unlink()
            continue
        tables.append(_held(table, path.name))
    stored = pa.concat_tables(tables) if tables else HELD.empty_table()
    return kept(stored, ~is_one_of(stored["reason"], TRANSIENT))


def _held(table: pa.Table, name: str) -> pa.Table:
    held = pa.repeat(name, len(table))
    return table.append_column(HELD.field("held_in"), held).replace_schema_metadata(None)


def _write(folder: Path, results: Sequence[ReportResult]) -> pa.Table:
    if not results:
        return HELD.empty_table()
    table = as_table(results).select(REPORTS.names)
    name = f"{digest(table)}.parquet"
    storage.write_table(folder / name, table, REPORTS)
    return _held(table, name)


def _shed(folder: Path, current: pa.Table) -> pa.Table:
    """Write anew the files that also hold reports which are no current ones: none may remain."""
    mixed = [
        name
        for name, number in counted(current["held_in"]).items()
        if name != "None" and pq.read_metadata(folder / name).num_rows > number
    ]
    if not mixed:
        return current
    own = is_one_of(current["held_in"], mixed)
    again = _write(folder, as_results(kept(current, own)))
    return pa.concat_tables([kept(current, ~own), again])


def _prune(folder: Path, needed: set[str]) -> None:
    for path in folder.glob("*.parquet"):
        if path.name not in needed:
            path.unlink()
