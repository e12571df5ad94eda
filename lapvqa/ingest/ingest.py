"""Stage ``ingest``: the archive's files to images, studies, labels and rejects.

Files are read once, in worker processes; finished work is kept in ``result_store``, so a killed run
continues and an archive that grew costs its new files only. The outputs are made of the store's
rows at the end and depend on the archive and the parameters alone.

Memory: a worker holds one file, at most ingest.limits.memory_mb; this process holds the images of
the shards being filled (ingest.shard_images x 147 kB, about twice), the reports, and about 6 kB
per file of the archive.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa
from pydicom.uid import UID

from lapvqa import storage
from lapvqa.errors import SourceError
from lapvqa.identity import Keyring, load_key
from lapvqa.ingest import study_tables
from lapvqa.ingest.archives.protocol import Archive
from lapvqa.ingest.archives.recognise import open_archive
from lapvqa.ingest.one_file import Context
from lapvqa.ingest.plan import Plan, plan, read_files
from lapvqa.ingest.rejects import load_waivers, require_budget
from lapvqa.ingest.reports import UTF8_NAMES, ReportResult, flag_counts, open_reports, read_reports
from lapvqa.ingest.result_store import ResultStore, open_files
from lapvqa.ingest.study_tables import Reports, Shard
from lapvqa.ingest.verdicts import Candidate, accepted, judge, raw_twins
from lapvqa.job import Job
from lapvqa.params import IngestParams
from lapvqa.project import Project
from lapvqa.recorder import Recorder
from lapvqa.schemas import IMAGES, INVENTORY, LABELS, REJECTS, STUDIES


@dataclass(frozen=True)
class Source:
    """The archive opened for reading: the files to read, settings, and the store of results."""

    folder: Path
    archive: Archive
    keyring: Keyring
    store: ResultStore
    context: Context
    planned: Plan


def run(params: IngestParams, job: Job) -> dict[str, int | float | str]:
    """Write data/images/, images, studies, labels and rejects.parquet; return the counts.

    Raises SourceError, SplitLeakError, or RejectBudgetError (rejects are then kept in
    .lapvqa/work/ingest/rejects.parquet too: DVC deletes outputs before the next run).
    """
    _clear(job.project)
    source = open_source(params, job)
    archive = source.archive
    job.recorder.say(
        f"{len(archive.images)} image files and {len(archive.reports)} reports in layout "
        f"{archive.name}, {job.machine.workers} workers"
    )
    for list_path, absent in sorted(archive.missing.items()):
        if absent:
            job.recorder.say(
                f"{absent} files that {list_path} names are not here: an incomplete copy?"
            )
    candidates = read_files(
        source.planned,
        archive,
        source.store,
        source.context,
        shard_images=params.shard_images,
        workers=job.machine.workers,
        recorder=job.recorder,
    )
    judge(candidates, archive, params)
    known_studies = study_tables.find_studies(candidates)
    results, reports = _reports(source, known_studies, params, job)
    candidates = study_tables.without_reports(candidates, reports)
    others = [*reports.rejects, *study_tables.study_rejects(candidates, known_studies, reports)]
    rejects = study_tables.rejects_table(candidates, others)
    _write_rejects(rejects, job.project)
    require_budget(
        archive.images,
        rejects,
        params.reject_budget,
        load_waivers(job.project),
        job.recorder,
        uncounted=raw_twins(candidates),
    )
    _require_reports(archive, len(reports.texts), source.folder)
    studies = study_tables.studies_table(known_studies, reports, _days(params, source.keyring))
    counts = _account(candidates, archive, studies, reports, rejects, job.recorder)
    _say_unknown_views(candidates, job.recorder)
    shards = study_tables.make_shards(candidates)
    images = study_tables.images_table(shards)
    counts["content"] = study_tables.content_digest(images, studies)
    job.recorder.facts({**_encodings(candidates), **_report_facts(results, reports, job.recorder)})
    labels = study_tables.labels_table(archive, source.keyring, studies)
    _write_outputs(shards, images, studies, labels, source.store, job.project)
    return counts


def open_source(params: IngestParams, job: Job) -> Source:
    """Open the archive that the inventory lists, and the store of what was read of it before."""
    folder = job.folders["source"]
    files = storage.read_table(job.project.inventory("source"), INVENTORY, made_by="inventory")
    columns = [files[name].to_pylist() for name in INVENTORY.names]
    facts = {path: (size, mtime) for path, size, mtime in zip(*columns, strict=True)}
    archive = open_archive(folder, columns[0], job.machine.reports)
    if not archive.reports:
        job.recorder.say("no file with reports yet: only DICOM SR among the images can bring some")
    key = load_key(folder, job)
    keyring = Keyring(key, keep_ids=params.deid.keep_ids)
    seed = params.split.seed
    return Source(
        folder,
        archive,
        keyring,
        open_files(job.project.work_dir("ingest"), folder, params, key),
        Context(folder, keyring, seed, params.limits),
        plan(archive, facts, views=params.views, keyring=keyring, split_seed=seed),
    )


def _reports(
    source: Source, studies: Sequence[study_tables.Study], params: IngestParams, job: Job
) -> tuple[dict[str, ReportResult], Reports]:
    known = study_tables.known_studies(studies, source.keyring)
    matches = source.archive.match_reports(known)
    paths = sorted(match.path for own in matches.reports.values() for match in own)
    policy, stated = params.deid.reports, job.machine.reports.digest()
    work_dir = job.project.work_dir("ingest")
    folder = open_reports(work_dir, source.folder, source.archive, policy, stated)
    results = read_reports(source.archive, paths, folder, policy, job.recorder)
    judged = study_tables.judge_reports(source.archive, matches, results, params.several_reports)
    return results, judged


def _days(params: IngestParams, keyring: Keyring) -> Callable[[str, date], date | None]:
    """Return the function that gives the date to write for a patient's (key) study."""
    if params.deid.dates == "shift":
        return keyring.shifted
    return (lambda _, day: day) if params.deid.dates == "keep" else (lambda _, day: None)


def _report_facts(
    results: Mapping[str, ReportResult], reports: Reports, recorder: Recorder
) -> dict[str, object]:
    taken = list(reports.texts.values())
    flags = flag_counts(results.values())
    if flags:
        counts = ", ".join(f"{kind} in {number}" for kind, number in flags.items())
        recorder.say(f"reports with text that may identify somebody: {counts}")
    encodings = Counter(str(result.encoding) for result in taken)
    forms = Counter(str(result.form) for result in taken)
    for what, counted in (
        ("matched by", reports.rules),
        ("in encoding", encodings),
        ("read from", forms),
    ):
        listed = ", ".join(f"{name}: {number}" for name, number in Counter(counted).most_common())
        if listed:
            recorder.say(f"reports {what} {listed}")
    return {
        "reports_not_utf8": sum(n for name, n in encodings.items() if name not in UTF8_NAMES),
        "reports_flagged": flags,
        "reports_by_rule": dict(reports.rules),
        "reports_by_encoding": dict(encodings),
        "reports_by_form": dict(forms),
    }


def _clear(project: Project) -> None:
    """Remove the manifest (written last: it means "complete") and leftovers of a killed run."""
    project.images.unlink(missing_ok=True)
    kept_rejects = project.work_dir("ingest") / project.rejects.name
    for path in (project.images, project.studies, project.labels, project.rejects, kept_rejects):
        for partial in path.parent.glob(f".{path.name}.*.tmp"):
            partial.unlink()


def _require_reports(archive: Archive, number: int, folder: Path) -> None:
    if number:
        return
    raise SourceError(
        f"expected reports beside {len(archive.images)} images in {folder}, found none that "
        "belongs to a study",
        hint=f"pretraining learns from reports; looked for {archive.looked_for}",
    )


def _write_rejects(rejects: pa.Table, project: Project) -> None:
    storage.write_table(project.rejects, rejects, REJECTS)
    storage.write_table(project.work_dir("ingest") / "rejects.parquet", rejects, REJECTS)


def _account(
    candidates: Sequence[Candidate],
    archive: Archive,
    studies: pa.Table,
    reports: Reports,
    rejects: pa.Table,
    recorder: Recorder,
) -> dict[str, int | float | str]:
    """Check in = out + rejects for files, studies and reports; report and return the counts."""
    rejected = Counter(rejects["kind"].to_pylist())
    known_studies = study_tables.studies_in(candidates)
    sums = {
        "files": (
            sum(path not in reports.paths for path in archive.images),
            len(accepted(candidates)),
            rejected["file"],
        ),
        "studies": (len(known_studies), len(studies), rejected["study"]),
        "reports": (len(reports.paths), len(reports.texts), rejected["report"]),
    }
    for kind, (total, taken, out) in sums.items():
        if total != taken + out:
            raise AssertionError(f"{kind}: {total} in, {taken} taken, {out} rejected")
        recorder.say(f"{kind}: {total} in = {taken} taken + {out} rejected")
    return {
        "files": sums["files"][0],
        "images": sums["files"][1],
        "files_rejected": sums["files"][2],
        "patients": len(set(studies["patient_key"].to_pylist())),
        "studies": len(studies),
        "studies_rejected": rejected["study"],
        "reports": len(reports.texts),
        "reports_rejected": rejected["report"],
    }


def _say_unknown_views(candidates: Sequence[Candidate], recorder: Recorder) -> None:
    images = accepted(candidates)
    unknown = sum(not image.view for image in images)
    if unknown:
        recorder.say(
            f"{unknown} of {len(images)} images are of unknown view: kept, and not trained on "
            "(ingest.unknown_view)"
        )


def _encodings(candidates: Sequence[Candidate]) -> dict[str, object]:
    images = accepted(candidates)
    taken = [image.result for image in images]
    counted = {
        "transfer_syntax": Counter(_syntax_name(result.transfer_syntax) for result in taken),
        "photometric": Counter(str(result.photometric) for result in taken),
        "voi": Counter(str(result.voi) for result in taken),
        "view": Counter(image.view or "unknown" for image in images),
        "view_source": Counter(str(image.view_source or "unknown") for image in images),
        "note": Counter(str(result.note) for result in taken if result.note),
    }
    return {name: dict(sorted(counts.items())) for name, counts in counted.items()}


def _syntax_name(syntax: str | None) -> str:
    return str(syntax) if str(syntax).startswith("image/") else UID(str(syntax)).name


def _write_outputs(
    shards: Sequence[Shard],
    images: pa.Table,
    studies: pa.Table,
    labels: pa.Table,
    store: ResultStore,
    project: Project,
) -> None:
    if project.images_dir.exists():
        shutil.rmtree(project.images_dir)
    for shard in shards:
        taken = [image.result for image in shard.images]
        store.export(project.images_dir / shard.name, shard.stored, taken)
    storage.write_table(project.studies, studies, STUDIES)
    storage.write_table(project.labels, labels, LABELS)
    storage.write_table(project.images, images, IMAGES)
