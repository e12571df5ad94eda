"""A report that has arrived goes into the archive; whose it is, ingest says, by accession number.

A file is kept as it came (HL7, FHIR, a table, a text named by accession number), under its digest
and the time of its arrival. An amended report takes the place of the one before by ingest's own
order (docs/ingest.md): status, source, date; where a report has no date, that of its arrival.

Here it is read too, so that the list of arrivals and the ledger can say what amends what. Told
first and moved then: killed between the two, the next start finds nothing new to tell.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lapvqa import arrivals, storage
from lapvqa.arrivals import AMENDED, REPORT, Line
from lapvqa.dicom.reasons import Reason
from lapvqa.errors import DicomError, SourceError
from lapvqa.ingest.archives.arrived import place_of
from lapvqa.ingest.archives.messages import Hashes, Keys, Names
from lapvqa.ingest.archives.names import place
from lapvqa.ingest.archives.protocol import Refusal, ReportText
from lapvqa.ingest.archives.report_sources import TreeReports
from lapvqa.intake import register
from lapvqa.intake.filing import Filing
from lapvqa.machine import ReportSources

MANY = 10_000
"""New reports of one file above which they are told in one line: a hospital's whole past."""
_RANKS = {"table": 10, "fhir": 20, "hl7": 30, "text": 50}
_TIME = "%Y%m%d%H%M%S"
_SUFFIX = re.compile(r"(?:\.(?:csv|tsv|txt|json|ndjson|hl7))?\.[A-Za-z0-9]{1,8}$")
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)+")
_WITH_MORE = re.compile(r"(.+?)[ _-]\w{1,16}")
_WORN = re.compile(r"[^\w. -]")


@dataclass(frozen=True)
class _Found:
    """One report of a file: whose it may be, and what it says or why it says nothing."""

    source: str
    """table | fhir | hl7 | text"""
    names: Names
    report: ReportText | Refusal

    @property
    def is_of_use(self) -> bool:
        """Whether it says something of a study: an ADT message beside reports does not."""
        if isinstance(self.report, ReportText):
            return True
        return self.report.reason == Reason.REPORT_WITHDRAWN


@dataclass(frozen=True)
class Taken:
    """What a file of reports came to."""

    new: int
    amended: int
    known: bool
    """The very file was here already."""


def take_reports(
    filing: Filing, folder: Path, path: str, *, source: str, stated: ReportSources
) -> Taken | None:
    """Take the reports of ``folder / path`` into the archive too; None if it holds none."""
    found = list(_reports_in(folder, path, stated))
    if not any(one.is_of_use for one in found):
        return None
    file, inbox = place(folder, path), filing.inbox
    size, name = file.stat().st_size, _name(path, found)
    # Of a text the name alone says whose it is: the words of one who is well are many's.
    whose = [name] if found[0].source == "text" else []
    digest = inbox.keyring.digest("file", storage.sha256_file(file), *whose)
    with filing.alone():
        below = inbox.archive / source
        bucket = (below / place_of(digest, "")).parent
        known = any(bucket.glob(f"{digest}-*"))
        if not known:
            time = _time_of_arrival(filing, found)
            events = _events(filing, found, source=source, digest=digest, size=size, time=time)
            _tell(filing, events, source=source, size=size, digest=digest)
            target = below / (place_of(digest, time) + name)
            storage.write_bytes(target, file.read_bytes())
            storage.flush_folder(bucket)
    amended = 0 if known else sum(event["event"] == AMENDED for event in events)
    return Taken(0 if known else len(events) - amended, amended, known)


def _reports_in(folder: Path, path: str, stated: ReportSources) -> Iterator[_Found]:
    """Yield the reports of a file, as ingest will find them in the archive."""
    reports = TreeReports(folder, [path], stated.model_copy(update={"table": None}))
    try:
        entries = [*reports.entries]
    except SourceError:  # local.yaml names columns, and this is no table with them
        reports = TreeReports(folder, [path], ReportSources(encoding=stated.encoding))
        entries = [*reports.entries]
    is_text = bool(reports.texts or reports.rich_texts)
    if not entries and reports.texts:
        entries = [*reports.look_into(reports.texts)]
    for entry in entries:
        names = entry.names if isinstance(entry.names, Names) else Names()
        if entry.place or entry.refusal is None:  # else the file cannot be read at all
            yield _Found(entry.source, names, entry.refusal or _read(reports, entry.path))
    if not entries and is_text:  # also what looks like a table and is none
        yield _Found("text", _names_in(path), _read(reports, path))


def _read(reports: TreeReports, path: str) -> ReportText | Refusal:
    try:
        return reports.read(path)
    except DicomError as error:
        return Refusal.of(error)


def _names_in(path: str) -> Names:
    """Return what a loose text may be named by: its name, that without an ending, its folder's."""
    stem = posixpath.splitext(posixpath.basename(path))[0]
    longer = _WITH_MORE.fullmatch(stem)
    folder = posixpath.basename(posixpath.dirname(path))
    names = [name for name in (stem, longer[1] if longer else "", folder) if name]
    uids = [name for name in names if _UID.fullmatch(name)]
    return Names(tuple(uids), tuple(name for name in names if name not in uids))


def _name(path: str, found: Sequence[_Found]) -> str:
    """Return how the file's name ends in the archive: a text's own name says whose it is."""
    if found[0].source != "text":
        suffix = _SUFFIX.search(path.lower())
        return suffix[0] if suffix else ""
    parts = [_WORN.sub("_", part).strip() or "_" for part in Path(place("", path)).parts[-2:]]
    return "".join(f"/{part if part.strip('.') else '_'}" for part in parts)


def _time_of_arrival(filing: Filing, found: Sequence[_Found]) -> str:
    """Return now, or a second behind what was told last of one of these reports."""
    time = datetime.now(UTC)
    for one in found:
        before = filing.register.report_of(_lookup(filing, one.names)[1])
        if before is not None and isinstance(one.report, ReportText) and not one.report.written:
            last = datetime.strptime(before["written"].ljust(14, "0"), _TIME).replace(tzinfo=UTC)
            time = max(time, last + timedelta(seconds=1))
    return time.strftime(_TIME)


def _lookup(filing: Filing, names: Names) -> tuple[str | None, list[str]]:
    """Return the study of a report, None if it is not known, and the keys it is known by."""
    keyring = filing.inbox.keyring
    keys: Keys = Hashes(keyring.study, keyring.accession, None, None).keys(names)
    numbers = [key for spelt in keys.accessions for key in spelt]
    study = keys.studies[0] if keys.studies else filing.register.study_of(numbers)
    return study, [*([study] if study else []), *numbers]


def _events(
    filing: Filing, found: Sequence[_Found], *, source: str, digest: str, size: int, time: str
) -> list[Line]:
    """Return an event for each report that is new or takes the place of another."""
    events: list[Line] = []
    keyring = filing.inbox.keyring
    for one in found:
        said = one.report if isinstance(one.report, ReportText) else None
        study, keys = _lookup(filing, one.names)
        before = filing.register.report_of(keys)
        if not one.is_of_use or (said is None and before is None):
            continue
        text = said.sha256 if said else Reason.REPORT_WITHDRAWN
        event: Line = {
            "at": arrivals.now(), "event": REPORT if before is None else AMENDED,
            "source": source, "study": study, "files": 0, "bytes": 0,
            "accession": [key for key in keys if key != study],
            "report": keyring.digest("report", text), "rank": _rank(filing, one),
            "status": said.status if said else "",
            "written": one.report.written or time,
        }  # fmt: skip
        if before is not None and not _counts(event, before, withdrawn=said is None):
            if event["report"] == before["report"] and _is_better(event, before):
                filing.register.add(event)  # the same text, now final or corrected: no event
            continue
        event["id"] = keyring.digest("event", digest, study, keys, event["report"])
        event |= {"files": 1, "bytes": size} if not events else {}
        if before is not None:
            event["replaces"] = before["report"]
        filing.register.add(event)
        events.append(event)
    return events


def _counts(event: Line, before: Line, *, withdrawn: bool) -> bool:
    """Tell whether a report counts in place of the one before."""
    if event["report"] == before["report"]:
        return False
    return withdrawn or _is_better(event, before)


def _is_better(event: Line, before: Line) -> bool:
    return register.worth(event) <= register.worth(before)


def _rank(filing: Filing, one: _Found) -> int:
    """Return the rank of ingest's rule that will find a report: the lower, the stronger."""
    if one.source != "text":
        return _RANKS[one.source]
    register, hashes = filing.register, Hashes(None, filing.inbox.keyring.accession, None, None)
    for behind, name in enumerate(one.names.accessions):
        keys = hashes.accession_keys(name)
        if any(key in register.studies or key in register.reports for key in keys):
            return _RANKS["text"] + behind
    return _RANKS["text"]


def _tell(filing: Filing, events: list[Line], *, source: str, size: int, digest: str) -> None:
    """Write down what has arrived: in the ledger what amends what, then in the list."""
    for event in events:
        if event["event"] == AMENDED:
            filing.record(event, "report", [(event["replaces"], event["report"])])
    if len(events) > MANY:
        whole: dict[str, Any] = {
            "at": arrivals.now(), "event": REPORT, "source": source, "study": None, "files": 1,
            "bytes": size, "id": digest, "reports": len(events),
        }  # fmt: skip
        arrivals.append(filing.project.arrivals, [whole])
        return
    arrivals.append(filing.project.arrivals, events)
