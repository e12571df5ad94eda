"""What the pipeline makes of a file, a folder or a report, before anybody runs it.

Everything goes through the functions of the stages ingest and tokens. Nothing is written, and the
key that hashes identifiers is made for this one look: no hash of it can be compared with another.
Whatever depends on the whole archive (duplicates, the patient of a study, whose report a text is)
is judged among the files that are looked at.
"""

from __future__ import annotations

import os
import posixpath
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lapvqa.dicom.reasons import Reason
from lapvqa.errors import SourceError, nothing_at
from lapvqa.identity import Ids, Keyring
from lapvqa.ingest import reports, study_tables
from lapvqa.ingest.account import companions_table
from lapvqa.ingest.archives import kinds
from lapvqa.ingest.archives.found import Files, find_files
from lapvqa.ingest.archives.names import shown
from lapvqa.ingest.archives.protocol import Archive
from lapvqa.ingest.archives.recognise import open_archive
from lapvqa.ingest.archives.report_sources import TreeReports
from lapvqa.ingest.one_file import Context, FileResult, Task, as_results, as_table, process_file
from lapvqa.ingest.plan import plan, with_plan
from lapvqa.ingest.reports import ReportResult, read_report
from lapvqa.ingest.study_tables import Reports, Studies
from lapvqa.ingest.verdicts import judge
from lapvqa.inventory import Entry, list_folder
from lapvqa.machine import Machine
from lapvqa.params import IngestParams, Params
from lapvqa.text import bpe
from lapvqa.text.languages import AUTO, UNKNOWN, Languages
from lapvqa.text.laterality import names_side
from lapvqa.text.sections import TargetText, target_text


@dataclass(frozen=True)
class FilePreview:
    """One image file: the verdict, what was read of it, and its stored pixels if it is taken."""

    result: FileResult
    """As judged: reason, view and view_source are the last word."""
    pixels: NDArray[np.uint8] | None
    """Stored image [384, 384]."""
    study: int | None
    """A number within this look; None of a picture by itself, which names no study."""

    @property
    def reason(self) -> Reason | None:
        """Why it is not taken; None if it is."""
        return Reason(self.result.reason) if self.result.reason else None


@dataclass(frozen=True)
class ReportPreview:
    """One report that is taken: which words are learnt, as how many tokens; what else it says."""

    path: str
    study: int | None
    encoding: str
    form: str
    language: str
    target: TargetText
    num_tokens: int
    """Begin and end included, before any cut."""
    is_cut: bool
    is_sided: bool
    flags: Sequence[str]
    """Kinds of text that may identify somebody, as many times as they were found."""


@dataclass(frozen=True)
class Preview:
    """A look at an archive, or at one file."""

    layout: str
    """Empty for a report or a picture by itself."""
    files: Sequence[FilePreview]
    reports: Sequence[ReportPreview]
    rejected_reports: Sequence[tuple[str, Reason, str]]
    """Path, reason and detail."""
    others: Mapping[str, str]
    """Path and kind of every file that is neither."""
    num_studies: int
    rules: Mapping[str, int]
    """How many reports were matched by which rule."""
    notes: Sequence[str] = ()
    """What is to be said of tables: those that are not read, and the columns of those that are."""
    not_looked_at: int = 0
    """Image files, or reports of one file, beyond the limit."""


@dataclass(frozen=True)
class Settings:
    """What a project says of how its archive is read."""

    params: Params
    machine: Machine
    languages: Languages


def look(path: Path, settings: Settings, *, limit: int) -> Preview:
    """Look at a file or folder, at no more than ``limit`` image files of it; raises SourceError.

    Paths of the preview begin in the folder, or with the name of the file.
    """
    given = path
    # Links are not followed: an archive has a folder under the link's name.
    path = Path(os.path.abspath(path))  # noqa: PTH100
    if path.is_dir():
        files = find_files(path, list_folder("source", {"source": path}, named=True))
        return _look_at_archive(path, files, settings, limit)
    if not path.is_file():
        raise nothing_at(given, "a file or folder")
    status = path.stat()
    entry: Entry = (shown(path.name), status.st_size, status.st_mtime_ns)
    files = find_files(path.parent, [entry])
    if not (files.dicom or files.pictures):
        return _look_at_report(path, files, settings, limit)
    try:
        return _look_at_archive(path.parent, files, settings, limit)
    except SourceError:
        if not files.pictures:
            raise
        return Preview("", [_picture(path.parent, entry, settings)], [], [], {}, 0, {})


def _picture(folder: Path, entry: Entry, settings: Settings) -> FilePreview:
    """Return what is stored of a picture by itself, as if its path named whose it is."""
    keyring = Keyring(secrets.token_bytes(32))
    context = Context(folder, keyring, 0, settings.params.ingest.limits)
    result = process_file(Task(*entry, Ids("1", "1", "1"), is_picture=True), context)
    return FilePreview(result, result.pixels, None)


def _look_at_archive(folder: Path, files: Files, settings: Settings, limit: int) -> Preview:
    """Look at files of ``folder`` from the root folder: the folders above it have names too.

    A study's folder may be called by its accession number, and a layout is known by its folders.
    """
    root = Path(folder.anchor)
    above = shown(folder.relative_to(root).as_posix()) + "/" if folder != root else ""
    stated = settings.machine.reports
    if stated.table is not None:
        stated = stated.model_copy(update={"table": _table_of(files, above, stated.table)})
    from_root = files.below(above)
    try:
        archive = open_archive(root, from_root, stated)
    except SourceError:
        open_archive(folder, files, settings.machine.reports)  # its error says where
        raise
    preview = _look_from_root(archive, root, from_root, settings, limit)
    return _called_from(above, preview)


def _table_of(files: Files, above: str, table: str) -> str:
    """Return the stated table from the root: it is relative to ``above`` or a folder above it."""
    known = {above + path for path in files.facts}
    folders = above.split("/")[:-1]
    places = ("/".join([*folders[:depth], table]) for depth in range(len(folders), -1, -1))
    return next((place for place in places if place in known), above + table)


def _called_from(above: str, preview: Preview) -> Preview:
    """Return the preview with paths below ``above``."""

    def named(path: str) -> str:
        return path[len(above) :] if path.startswith(above) else posixpath.relpath(path, above)

    return replace(
        preview,
        files=[
            replace(file, result=replace(file.result, path=named(file.result.path)))
            for file in preview.files
        ],
        reports=[replace(report, path=named(report.path)) for report in preview.reports],
        rejected_reports=[
            (named(path), reason, why) for path, reason, why in preview.rejected_reports
        ],
        others={named(path): kind for path, kind in preview.others.items()},
    )


def _look_from_root(
    archive: Archive, root: Path, files: Files, settings: Settings, limit: int
) -> Preview:
    keyring = Keyring(secrets.token_bytes(32))
    ingest = settings.params.ingest
    seed = ingest.split.seed
    planned = plan(archive, files, views=ingest.views)
    context = Context(root, keyring, seed, ingest.limits)
    asked = planned.to_read[:limit]
    read = [process_file(task, context) for task in planned.tasks(asked)]
    looked_at = planned.only(np.union1d(asked, np.flatnonzero(planned.is_settled)))
    judged = judge(
        with_plan(looked_at, as_table(read), context), ingest, has_split=archive.has_split
    )
    studies = study_tables.find_studies(judged)
    # In order of path: keys are hashes of this one look, and so is their order.
    results = sorted(as_results(judged), key=lambda result: result.path)
    known = dict.fromkeys(result.study_key for result in results if result.study_key)
    numbers = {key: number for number, key in enumerate(known, start=1)}
    found, notes = _judged_reports(archive, studies, keyring, ingest)
    rest = study_tables.without_reports(judged, found)
    pixels = {result.path: result.pixels for result in read}
    not_looked_at = len(planned.to_read) - len(asked)
    rejects = [_reject(row) for row in found.rejects]
    if not_looked_at:  # whose studies are not known: a report of one is no stray
        rejects = [row for row in rejects if row[1] is not Reason.REPORT_WITHOUT_STUDY]
    return Preview(
        layout=archive.name,
        files=[
            FilePreview(result, pixels.get(result.path), numbers.get(result.study_key or ""))
            for result in as_results(rest)
        ],
        reports=_reports(found, numbers, settings),
        rejected_reports=rejects,
        others=_others(archive, files, judged, found),
        num_studies=len(studies.keys),
        rules=found.rules,
        notes=notes,
        not_looked_at=not_looked_at,
    )


def _reject(row: Mapping[str, str | None]) -> tuple[str, Reason, str]:
    return str(row["file"]), Reason(str(row["reason"])), str(row["detail"])


def _judged_reports(
    archive: Archive, studies: Studies, keyring: Keyring, params: IngestParams
) -> tuple[Reports, Sequence[str]]:
    matches = archive.match_reports(study_tables.known_studies(studies, keyring))
    paths = sorted({match.path for own in matches.reports.values() for match in own})
    results = reports.as_table(
        [
            read_report(archive.read_report, ReportResult(path=path), params.deid.reports)
            for path in paths
        ]
    )
    judged = study_tables.judge_reports(archive, matches, results, params.several_reports)
    return judged, matches.notes


def _reports(
    judged: Reports, numbers: Mapping[str, int], settings: Settings
) -> list[ReportPreview]:
    studies = judged.taken["study_key"].to_pylist()
    previews = [
        replace(_preview(result, settings), study=numbers.get(study))
        for study, result in zip(studies, reports.as_results(judged.taken), strict=True)
    ]
    return sorted(previews, key=lambda preview: preview.path)


def _preview(result: ReportResult, settings: Settings) -> ReportPreview:
    params, languages, text = settings.params.tokens, settings.languages, result.text or ""
    is_chosen = params.language != AUTO
    language = languages.find(params.language) if is_chosen else languages.detect(text)
    target = target_text(text, params.sections, language)
    encoded = bpe.encode([target.text], max_length=params.max_length)
    num_tokens = int(encoded.num_tokens[0]) + 2
    return ReportPreview(
        path=result.path,
        study=None,
        encoding=result.encoding or "",
        form=result.form or "",
        language=language.code if language else UNKNOWN,
        target=target,
        num_tokens=num_tokens if target.verdict.has_text else 0,
        is_cut=target.verdict.has_text and num_tokens > params.max_length,
        is_sided=names_side(target.text, language),
        flags=result.flags or (),
    )


def _others(archive: Archive, files: Files, judged: pa.Table, found: Reports) -> dict[str, str]:
    beside = companions_table(judged, archive, files, found)
    known = {*found.paths.to_pylist(), *archive.images}
    rows = beside.filter(pc.equal(beside["kind"], "other")).to_pylist()
    return {row["path"]: row["what"] for row in rows if row["path"] not in known}


def _look_at_report(path: Path, files: Files, settings: Settings, limit: int) -> Preview:
    """Look at a file of reports by itself: nothing says whose they would be."""
    name = shown(path.name)
    stated = settings.machine.reports.model_copy(update={"table": None})
    sources = TreeReports(path.parent, [name], stated)
    entries = sources.entries.paths or sources.look_into(sources.texts).paths
    found = entries or [*sources.texts, *sources.rich_texts]
    refused = {
        entry.path: (entry.path, entry.refusal.reason, entry.refusal.detail)
        for entry in sources.entries
        if entry.refusal is not None
    }
    policy = settings.params.ingest.deid.reports
    results = [
        read_report(sources.read, ReportResult(path=one), policy)
        for one in found[:limit]
        if one not in refused
    ]
    rejected = [(r.path, Reason(r.reason), r.detail or "") for r in results if r.reason]
    return Preview(
        layout="",
        files=[],
        reports=[_preview(result, settings) for result in results if result.reason is None],
        rejected_reports=[*refused.values(), *rejected],
        others={} if found else {name: next(iter(files.others.values()), kinds.UNKNOWN)},
        num_studies=0,
        rules={},
        notes=[*sources.notes, *(f"columns: {taken}" for taken in sources.columns.values())],
        not_looked_at=len(found[limit:]),
    )
