"""Stage ``ingest``: the archive's files to images, studies, labels and rejects.

Files are read once, in worker processes; finished work is kept in ``result_store``, so a killed run
continues and an archive that grew costs its new files only. The outputs are made of the store's
rows at the end and depend on the archive and the parameters alone.

Memory: a worker holds one file, at most ingest.limits.memory_mb; this process holds the images of
the shards being filled (ingest.shard_images x 147 kB, about twice), and the reports and
all that is known of the files as columns: about 3 kB per file (1.6 GB at 377,110 with 215,491
reports).
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pydicom.uid import UID

from lapvqa import code, storage
from lapvqa.dicom.reasons import Reason
from lapvqa.errors import SourceError
from lapvqa.identity import Keyring, key_id, load_key
from lapvqa.ingest import study_tables
from lapvqa.ingest.account import account, by_kind, companions, companions_table
from lapvqa.ingest.archives.found import Files, find_known_files
from lapvqa.ingest.archives.messages import Hashes
from lapvqa.ingest.archives.protocol import OTHER_STATUS, Archive, people_of
from lapvqa.ingest.archives.recognise import open_archive
from lapvqa.ingest.archives.report_index import ReportIndex, index_file
from lapvqa.ingest.archives.tree import TreeArchive
from lapvqa.ingest.columns import counted, is_one_of, is_set, is_valid, kept, mapped, whole
from lapvqa.ingest.last_run import LastRun
from lapvqa.ingest.one_file import STORED, Context, as_table, unread
from lapvqa.ingest.plan import Plan, known_line, look_up, plan, read_files, with_plan
from lapvqa.ingest.rejects import load_waivers, require_budget
from lapvqa.ingest.reports import UTF8_NAMES, flag_counts, open_reports, read_reports
from lapvqa.ingest.result_store import ResultStore, open_files
from lapvqa.ingest.study_tables import Reports, Shard
from lapvqa.ingest.tombstones import Tombstones, load_tombstones
from lapvqa.ingest.verdicts import in_splits_of_others, is_taken, judge, raw_twins
from lapvqa.job import Job
from lapvqa.params import IngestParams
from lapvqa.project import Project
from lapvqa.recorder import Recorder
from lapvqa.recorder import counted as in_words
from lapvqa.schemas import COMPANIONS, DEMOGRAPHICS, IMAGES, INVENTORY, LABELS, REJECTS, STUDIES

_OF_ONE_RUN = re.compile(r" known from before, |^dropped damaged ")
"""Lines that a run which finds nothing new would not say again as they are."""


@dataclass(frozen=True)
class Source:
    """The archive opened for reading: the files to read, settings, and the store of results."""

    folder: Path
    archive: Archive
    keyring: Keyring
    store: ResultStore
    context: Context
    planned: Plan
    files: Files
    erased: Tombstones


def run(params: IngestParams, job: Job) -> dict[str, int | float | str]:
    """Write data/images/, images, studies, labels, rejects and companions; return the counts.

    Raises SourceError, SplitLeakError, or RejectBudgetError (rejects are then kept in
    .lapvqa/work/ingest/rejects.parquet too: DVC deletes outputs before the next run).
    """
    _clear(job.project)
    last = LastRun(params, job)
    if (before := last.give_back()) is not None:
        return before
    last.forget()
    source = open_source(params, job)
    archive = source.archive
    began = len(job.recorder.said)
    job.recorder.say(
        f"{in_words(len(archive.images), 'image file')} and "
        f"{in_words(len(archive.reports), 'report')} in layout {archive.name}, "
        f"{in_words(job.machine.workers, 'worker')}"
    )
    for list_path, absent in sorted(archive.missing.items()):
        if absent:
            job.recorder.say(
                f"not here: {in_words(absent, 'file')} that {list_path} names; an incomplete copy?"
            )
    files = read_files(
        source.planned,
        source.store,
        source.context,
        shard_images=params.shard_images,
        workers=job.machine.workers,
        recorder=job.recorder,
    )
    files = judge(files, params, has_split=archive.has_split)
    require_images(files, source.folder)
    taken = kept(files, is_taken(files))
    shards = study_tables.make_shards(taken)
    images, facts = study_tables.images_table(taken, shards), _encodings(taken)
    facts |= _say_doubts(taken, job.recorder)
    stored, files = taken.select(["image_key", "row"]), files.select(study_tables.NEEDED)
    del taken  # what only the table of images needs need not be there twice
    known_studies = study_tables.find_studies(files)
    reports, flags, num_reports = _reports(source, known_studies, params, job)
    known_studies = study_tables.without_keys_of_erased(known_studies)
    files = known_studies.files
    days_earlier = _days_earlier(params, source.keyring)
    studies = study_tables.studies_table(known_studies, reports, days_earlier)
    reports = replace(reports, taken=reports.taken.drop_columns(["text"]))
    files = study_tables.without_reports(files, reports)
    beside = companions_table(files, archive, source.files, reports)
    storage.write_table(job.project.companions, beside, COMPANIONS)
    others = [*reports.rejects, *study_tables.study_rejects(files, known_studies, reports)]
    rejects = study_tables.rejects_table(files, others)
    _write_rejects(rejects, job.project)
    require_budget(
        files["path"].filter(pa.array(~is_one_of(files["reason"], [Reason.COMPANION]))),
        rejects,
        params.reject_budget,
        load_waivers(job.project),
        job.recorder,
        uncounted=raw_twins(files),
    )
    _require_reports(archive, reports, source.folder)
    counts = account(
        files,
        source.files,
        studies=studies,
        reports=reports,
        rejects=rejects,
        beside=beside,
        recorder=job.recorder,
    )
    counts["content"] = study_tables.content_digest(images, studies)
    facts |= _report_facts(reports, flags, job.recorder)
    facts |= _write_demographics(source, known_studies, studies, job.project)
    job.recorder.facts(facts)
    labels = study_tables.labels_table(files, archive.labels(), source.keyring, studies)
    _export(shards, stored, source.store, job.project)
    storage.write_table(job.project.studies, studies, STUDIES)
    storage.write_table(job.project.labels, labels, LABELS)
    storage.write_table(job.project.images, images, IMAGES)
    said = [line for line in job.recorder.said[began:] if not _OF_ONE_RUN.search(line)]
    for number, what in ((len(source.planned.to_read), "file"), (num_reports, "report")):
        said += [known_line(number, 0, what)] * bool(number)
    last.keep(counts, facts, said)
    return counts


def open_source(params: IngestParams, job: Job) -> Source:
    """Open the archive that the inventory lists, and the store of what was read of it before."""
    folder = job.folders["source"]
    listed = storage.read_table(job.project.inventory("source"), INVENTORY, made_by="inventory")
    work_dir = job.project.work_dir("ingest")
    found = find_known_files(folder, listed, work_dir)
    key = load_key(folder, job)
    keyring = Keyring(key, keep_ids=params.deid.keep_ids)
    erased = load_tombstones(job.project, keyring)
    store = open_files(work_dir, folder, params, key)
    store.bury(erased, job.recorder)
    index = partial(_report_index, folder, erased, job)
    archive = open_archive(folder, found, job.machine.reports, index)
    if not archive.reports:
        job.recorder.say("no file with reports yet: only DICOM SR among the images can bring some")
    return Source(
        folder,
        archive,
        keyring,
        store,
        Context(folder, keyring, params.split.seed, params.limits, erased),
        plan(archive, found, views=params.views, erased=erased),
        found,
        erased,
    )


def _report_index(folder: Path, erased: Tombstones, job: Job, files: Files) -> ReportIndex:
    """Open what is known of files with several reports; of somebody erased by placeholders."""
    keyring = erased.keyring
    described = {
        "source": str(folder.resolve()),
        "key": key_id(keyring.key),
        "keep_ids": keyring.keep_ids,
        "reports": job.machine.reports.digest(),
        "erased": erased.digest,
        "code": code.digest(TreeArchive.__module__),
    }
    study, image, patient = (
        partial(erased.key_or_placeholder, kind) for kind in ("study", "image", "patient")
    )
    hashes = Hashes(study, keyring.accession, image, patient)
    file = index_file(job.project.work_dir("ingest"), described)
    return ReportIndex(file, hashes, files.facts)


def _reports(
    source: Source, studies: study_tables.Studies, params: IngestParams, job: Job
) -> tuple[Reports, dict[str, int], int]:
    """Return the reports; of all that were read how many hold identifying text by kind; them."""
    known = study_tables.known_studies(studies, source.keyring)
    matches = study_tables.without_erased(source.archive.match_reports(known), studies.files)
    for note in matches.notes:
        job.recorder.say(note)
    paths = pc.unique(whole(matches.table["path"])).sort()
    policy, stated = params.deid.reports, job.machine.reports.digest()
    work_dir = job.project.work_dir("ingest")
    folder = open_reports(work_dir, source.folder, source.archive, policy, stated)
    results = read_reports(source.archive, source.files, paths, folder, policy, job.recorder)
    judged = study_tables.judge_reports(source.archive, matches, results, params.several_reports)
    return judged, flag_counts(results), len(results)


def files_of(marked: Tombstones, params: IngestParams, job: Job) -> list[str]:
    """Return the films and reports that a run would refuse if ``marked`` were erased.

    None is read: of a film that finished work does not know, its path may tell whose it is.
    """
    with storage.lock(job.project.work_dir("ingest").with_suffix(".lock"), what="stage ingest"):
        source = open_source(params, job)
        known = look_up(source.planned, source.store, source.keyring, job.recorder)
        new = as_table([unread(task, source.keyring, params.split.seed) for task in known.new])
        results = pa.concat_tables([known.current.select(STORED.names), new])
        files = with_plan(source.planned, results, source.context)
        files = judge(files, params, has_split=source.archive.has_split)
        studies = study_tables.find_studies(files.select(study_tables.NEEDED))
        matches = source.archive.match_reports(study_tables.known_studies(studies, source.keyring))
    own = marked.hits(files)
    films: list[str] = files["path"].filter(pa.array(own)).to_pylist()
    return films + study_tables.reports_of(matches, files, own)


def _days_earlier(params: IngestParams, keyring: Keyring) -> Callable[[str], int] | None:
    """Return the function that says by how many days a patient's (key) dates are moved."""
    if params.deid.dates == "shift":
        return keyring.days_earlier
    return (lambda _: 0) if params.deid.dates == "keep" else None


def _report_facts(reports: Reports, flags: dict[str, int], recorder: Recorder) -> dict[str, object]:
    unknown = int(pc.sum(pc.equal(reports.taken["status"], OTHER_STATUS)).as_py() or 0)
    if unknown:
        recorder.say(
            f"{unknown} reports have a status of no known meaning, and count as if they had none"
        )
    if flags:
        counts = ", ".join(f"{kind} in {number}" for kind, number in flags.items())
        recorder.say(f"reports with text that may identify somebody: {counts}")
    encodings = counted(reports.taken["encoding"])
    forms = counted(reports.taken["form"])
    for what, numbers in (
        ("matched by", reports.rules),
        ("in encoding", encodings),
        ("read from", forms),
    ):
        listed = ", ".join(f"{name}: {number}" for name, number in Counter(numbers).most_common())
        if listed:
            recorder.say(f"reports {what} {listed}")
    return {
        "reports_not_utf8": sum(n for name, n in encodings.items() if name not in UTF8_NAMES),
        "reports_flagged": flags,
        "reports_by_rule": dict(reports.rules),
        "reports_by_encoding": encodings,
        "reports_by_form": forms,
    }


def _clear(project: Project) -> None:
    """Remove the manifest (written last: it means "complete") and leftovers of a killed run."""
    project.images.unlink(missing_ok=True)
    kept_rejects = project.work_dir("ingest") / project.rejects.name
    for path in (
        project.images,
        project.studies,
        project.labels,
        project.demographics,
        project.rejects,
        project.companions,
        kept_rejects,
    ):
        for unfinished in path.parent.glob(f".{path.name}.*.tmp"):
            unfinished.unlink()


def _require_reports(archive: Archive, reports: Reports, folder: Path) -> None:
    if len(reports.taken):
        return
    rejected = Counter(str(row["reason"]) for row in reports.rejects)
    why = f"; {rejected.total()} reports were rejected: {by_kind(rejected.items())}"
    see = "see `lapvqa rejects --files`; "
    raise SourceError(
        f"expected reports beside {len(archive.images)} images in {folder}, found none that "
        "belongs to a study" + (why if rejected else ""),
        hint=(see if rejected else "")
        + f"pretraining learns from reports; looked for {archive.looked_for}",
    )


def require_images(files: pa.Table, folder: Path) -> None:
    """Raise SourceError if the archive holds companions only."""
    beside = companions(files)
    if len(beside) == len(files):
        kinds = counted(pc.replace_substring(beside["companion"], "_", " "))
        raise SourceError(
            f"expected chest radiographs in {folder}, found {len(beside)} DICOM objects and no "
            f"image among them ({by_kind(kinds.items())})",
            hint="export the images too; a DICOMDIR only lists them, a report or a presentation "
            "state only refers to them",
        )


def _write_rejects(rejects: pa.Table, project: Project) -> None:
    storage.write_table(project.rejects, rejects, REJECTS)
    storage.write_table(project.work_dir("ingest") / "rejects.parquet", rejects, REJECTS)


def _say_doubts(images: pa.Table, recorder: Recorder) -> dict[str, object]:
    """Say of how many taken images the view, the part of the body or the split is in doubt."""
    without_view = int((~is_set(images["view"])).sum())
    if without_view:
        recorder.say(
            f"{without_view} of {len(images)} images are of unknown view: kept, and not trained on "
            "(ingest.unknown_view)"
        )
    # Pictures have no header; their layouts hold chests only.
    without_part = int((is_valid(images["modality"]) & ~is_set(images["body_part"])).sum())
    if without_part:
        recorder.say(
            f"{without_part} of {len(images)} images do not say which part of the body they show: "
            "taken for chests"
        )
    in_two_splits = in_splits_of_others(images)
    if in_two_splits:
        recorder.say(
            f"{in_two_splits} images have the pixels of an image of another patient, in another "
            "split: is a patient there under two ids?"
        )
    return {"body_part_unknown": without_part, "pixels_in_two_splits": in_two_splits}


def _write_demographics(
    source: Source, known: study_tables.Studies, studies: pa.Table, project: Project
) -> dict[str, object]:
    """Write data/demographics.parquet; return of how many studies sex and age are known."""
    people = people_of(source.archive, source.keyring.patient)
    table = study_tables.demographics_table(known, studies, people)
    storage.write_table(project.demographics, table, DEMOGRAPHICS)
    return {
        f"studies_with_{name}": len(table) - table[name].null_count for name in ("sex", "age_band")
    }


def _encodings(images: pa.Table) -> dict[str, object]:
    columns = {
        "transfer_syntax": mapped(images["transfer_syntax"], _syntax_name),
        "photometric": images["photometric"],
        "voi": images["voi"],
        "view": pc.if_else(pa.array(is_set(images["view"])), images["view"], "unknown"),
        "view_source": images["view_source"].fill_null("unknown"),
        "note": images["note"].filter(pa.array(is_set(images["note"]))),
    }
    return {name: dict(sorted(counted(column).items())) for name, column in columns.items()}


def _syntax_name(syntax: str) -> str:
    return syntax if syntax.startswith("image/") else UID(syntax).name


def _export(
    shards: Sequence[Shard], images: pa.Table, store: ResultStore, project: Project
) -> None:
    if project.images_dir.exists():
        shutil.rmtree(project.images_dir)
    keys, rows = whole(images["image_key"]), whole(images["row"]).to_numpy()
    for shard in shards:
        own = keys.take(pa.array(shard.rows))
        store.export(project.images_dir / shard.name, shard.stored, own, rows[shard.rows])
