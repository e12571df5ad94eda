"""Stage ``ingest``: the archive's files to images, studies, labels and rejects.

Files are read once, in worker processes; finished work is kept in ``store`` (its docstring says
how), so a killed run continues and an archive that grew costs its new files only. The outputs
are made of the store's rows at the end and depend on the archive and the parameters alone.

Memory: a worker holds one file; this process holds the images of the shards being filled
(ingest.shard_images x 147 kB, about twice) and a few kB per file of the archive.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from pydicom.uid import UID

from lapvqa import storage
from lapvqa.config import Machine
from lapvqa.dicom import tables
from lapvqa.dicom.identity import Keyring, key_id, load_key
from lapvqa.dicom.layouts import Archive, open_archive
from lapvqa.dicom.reading import plan, read_files
from lapvqa.dicom.reasons import BY_REQUEST
from lapvqa.dicom.store import ResultStore, open_store
from lapvqa.dicom.tables import Reports, Shard
from lapvqa.dicom.verdicts import Candidate, accepted, judge
from lapvqa.dicom.workers import Context
from lapvqa.errors import RejectBudgetError, SourceError
from lapvqa.layout import Layout
from lapvqa.params import IngestParams, load_params
from lapvqa.recorder import Recorder
from lapvqa.schemas import IMAGES, INVENTORY, LABELS, REJECTS, STUDIES


def run(
    params: IngestParams, layout: Layout, machine: Machine, recorder: Recorder
) -> dict[str, int | float | str]:
    """Write data/images/, images, studies, labels and rejects.parquet; return the counts.

    Raises SourceError, SplitLeakError, or RejectBudgetError (rejects are then kept in
    .lapvqa/work/ingest/rejects.parquet too: DVC deletes outputs before the next run).
    """
    _clear(layout)
    folder = machine.folder("source", load_params(layout.params).inventory, layout)
    listing = storage.read_table(layout.inventory("source"), INVENTORY, made_by="inventory")
    columns = [listing[name].to_pylist() for name in INVENTORY.names]
    facts = {path: (size, mtime) for path, size, mtime in zip(*columns, strict=True)}
    archive = open_archive(folder, columns[0])
    _require_reports(archive, len(archive.reports), folder)

    key = load_key(folder, layout, machine, recorder)
    keyring = Keyring(key, keep_ids=params.deid.keep_ids)
    seed = params.split.seed
    recorder.say(
        f"{len(archive.images)} image files and {len(archive.reports)} reports in layout "
        f"{archive.name}, {machine.workers} workers"
    )
    store = open_store(
        layout.work_dir("ingest"),
        folder,
        {"key": key_id(key), "keep_ids": params.deid.keep_ids, "seed": seed},
    )
    candidates = read_files(
        plan(archive, facts, views=params.views, keyring=keyring, split_seed=seed),
        archive,
        store,
        Context(folder, keyring, seed),
        shard_images=params.shard_images,
        workers=machine.workers,
        recorder=recorder,
    )
    judge(candidates, archive, views=params.views, split=params.split)
    found = tables.find_studies(candidates)
    reports = tables.read_reports(folder, archive, found)
    others = [*reports.rejects, *tables.study_rejects(candidates, found, reports)]
    rejects = tables.rejects_table(candidates, others)
    _write_rejects(rejects, layout)
    _require_budget(candidates, rejects, params.reject_budget.overall, recorder)
    _require_reports(archive, len(reports.texts), folder)
    studies = tables.studies_table(found, reports)
    counts = _account(candidates, archive, studies, reports, rejects, recorder)
    recorder.facts(_encodings(candidates, reports))
    _write_outputs(
        tables.make_shards(candidates, params.shard_images),
        studies,
        tables.labels_table(archive, keyring, studies),
        store,
        layout,
    )
    return counts


def _clear(layout: Layout) -> None:
    """Remove the manifest (written last: it means "complete") and what a killed run left."""
    layout.images.unlink(missing_ok=True)
    kept_rejects = layout.work_dir("ingest") / layout.rejects.name
    for path in (layout.images, layout.studies, layout.labels, layout.rejects, kept_rejects):
        for partial in path.parent.glob(f".{path.name}.*.tmp"):
            partial.unlink()


def _require_reports(archive: Archive, found: int, folder: Path) -> None:
    if found:
        return
    looked_for = (
        "files/pNN/pSUBJECT/sSTUDY.txt"
        if archive.name == "mimic-cxr"
        else "STUDY_FOLDER.txt, a .txt named like an image, or one .txt in a study's folder"
    )
    raise SourceError(
        f"expected reports beside {len(archive.images)} images in {folder}, found none that "
        "belongs to a study",
        hint=f"pretraining learns from reports; looked for {looked_for}",
    )


def _write_rejects(rejects: pa.Table, layout: Layout) -> None:
    storage.write_table(layout.rejects, rejects, REJECTS)
    storage.write_table(layout.work_dir("ingest") / "rejects.parquet", rejects, REJECTS)


def _require_budget(
    candidates: Sequence[Candidate], rejects: pa.Table, allowed: float, recorder: Recorder
) -> None:
    """Say the counts by reason; raise RejectBudgetError above the allowed share of files."""
    kinds = zip(rejects["kind"].to_pylist(), rejects["reason"].to_pylist(), strict=True)
    by_reason = Counter(f"{kind} {reason}" for kind, reason in kinds)
    listed = ", ".join(f"{reason}: {count}" for reason, count in by_reason.most_common())
    if listed:
        recorder.say(f"rejected by reason: {listed}")
    counted = sum(c.reason is not None and c.reason not in BY_REQUEST for c in candidates)
    if counted > allowed * len(candidates) or not accepted(candidates):
        raise RejectBudgetError(
            f"{counted} of {len(candidates)} files were rejected "
            f"({counted / len(candidates):.1%}), allowed are {allowed:.1%}; {listed}",
            hint="see file, reason and remedy in .lapvqa/work/ingest/rejects.parquet; correct the "
            "archive, or raise ingest.reject_budget in params.yaml",
        )


def _account(
    candidates: Sequence[Candidate],
    archive: Archive,
    studies: pa.Table,
    reports: Reports,
    rejects: pa.Table,
    recorder: Recorder,
) -> dict[str, int | float | str]:
    """Check in = out + rejects for files, studies and reports; say it, and return the counts."""
    rejected = Counter(rejects["kind"].to_pylist())
    known_studies = {c.result.study_key for c in candidates} - {None}
    sums = {
        "files": (len(archive.images), len(accepted(candidates)), rejected["file"]),
        "studies": (len(known_studies), len(studies), rejected["study"]),
        "reports": (len(archive.reports), len(reports.texts), rejected["report"]),
    }
    for what, (found, taken, turned_away) in sums.items():
        if found != taken + turned_away:
            raise AssertionError(f"{what}: {found} in, {taken} out, {turned_away} rejected")
        recorder.say(f"{what}: {found} in = {taken} taken + {turned_away} rejected")
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


def _encodings(candidates: Sequence[Candidate], reports: Reports) -> dict[str, object]:
    taken = [candidate.result for candidate in accepted(candidates)]
    counted = {
        "transfer_syntax": Counter(UID(str(result.transfer_syntax)).name for result in taken),
        "photometric": Counter(str(result.photometric) for result in taken),
        "voi": Counter(str(result.voi) for result in taken),
    }
    facts: dict[str, object] = {
        name: dict(sorted(counts.items())) for name, counts in counted.items()
    }
    return {**facts, "reports_not_utf8": reports.num_not_utf8}


def _write_outputs(
    shards: Sequence[Shard],
    studies: pa.Table,
    labels: pa.Table,
    store: ResultStore,
    layout: Layout,
) -> None:
    if layout.images_dir.exists():
        shutil.rmtree(layout.images_dir)
    for shard in shards:
        keys = [str(image.result.image_key) for image in shard.images]
        store.export(layout.images_dir / shard.name, keys, shard.places)
    storage.write_table(layout.studies, studies, STUDIES)
    storage.write_table(layout.labels, labels, LABELS)
    storage.write_table(layout.images, tables.images_table(shards), IMAGES)
