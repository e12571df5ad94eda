"""Read the files that have not been read yet, and put every file of the archive beside its result.

A file that is
    new          is read; its image goes into a new shard, wherever its name sorts and however late
                 it comes
    renamed,     is read, recognised as a known image, and given that image's old place: no shard
    moved or     changes
    re-delivered
    replaced     is read; the new image goes into a new shard, the old one is removed from its own
    deleted      loses its image in its shard and its row in the tables
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lapvqa import code
from lapvqa.dicom.reasons import Reason
from lapvqa.dicom.views import clean_view
from lapvqa.identity import Ids, Keyring
from lapvqa.ingest import tombstones
from lapvqa.ingest.archives import kinds
from lapvqa.ingest.archives.found import Files
from lapvqa.ingest.archives.kinds import PICTURE
from lapvqa.ingest.archives.protocol import IDS, LISTED, Archive, ids_of
from lapvqa.ingest.columns import (
    Mask,
    Rows,
    in_order,
    is_one_of,
    is_set,
    is_valid,
    mapped,
    positions,
    taken,
    whole,
)
from lapvqa.ingest.one_file import STORED, Context, FileResult, Task, as_table, unread
from lapvqa.ingest.pool import process_all
from lapvqa.ingest.result_store import ResultStore
from lapvqa.ingest.tombstones import Tombstones
from lapvqa.ingest.verdicts import Verdicts, Views, reject_unless_frontal
from lapvqa.recorder import Recorder, counted

Places = Mapping[tuple[str, str], tuple[str, int]]
"""Shard and row of images by image key and sha256 of the pixels."""


@dataclass(frozen=True)
class Plan:
    """The archive's files in order of path, and which of them are settled without reading."""

    files: pa.Table
    """Path, size, mtime_ns, is_picture; ``IDS`` and ``LISTED``; reason and detail if settled."""
    check: str
    """Names the code that told the ids: the same code tells the same ids of a path."""

    def tasks(self, rows: Rows) -> list[Task]:
        """Return the tasks of reading the files in ``rows``."""
        facts = self.files.take(pa.array(rows))
        columns = [facts[name].to_pylist() for name in ("path", "size", "mtime_ns")]
        ids = map(Ids, *(facts[name].to_pylist() for name in IDS.names))
        return list(map(Task, *columns, ids, facts["is_picture"].to_pylist()))

    def only(self, rows: Rows) -> Plan:
        """Return the plan for the files in ``rows`` alone."""
        return Plan(self.files.take(pa.array(rows)), self.check)

    @property
    def is_settled(self) -> Mask:
        """Of each file, whether path and tables decide that it is not read."""
        return is_valid(self.files["reason"])

    @property
    def to_read(self) -> Rows:
        """The rows of the other files."""
        return np.flatnonzero(~self.is_settled)


@dataclass(frozen=True)
class Known:
    """The files to read: results that the store has, new tasks, and images that no file claims."""

    current: pa.Table
    new: Sequence[Task]
    orphans: Places


def plan(archive: Archive, files: Files, *, views: Views, erased: Tombstones | None = None) -> Plan:
    """Settle what path and tables alone decide: of somebody erased, a zip that cannot be read,
    outside the layout, or not the view asked for."""
    paths = pa.array(sorted([*archive.images, *files.faults]), pa.string())
    named, is_known = ids_of(archive, paths)
    has_fault = is_one_of(paths, files.faults)
    if has_fault.any():  # such a file may have no name of its own
        nothing = pa.scalar(None, pa.string())
        columns = [pc.if_else(pa.array(has_fault), nothing, column) for column in named.columns]
        named = pa.table(columns, schema=IDS)
    listed = archive.listed(named)
    verdicts = Verdicts(len(paths))
    if erased is not None:
        verdicts.reject(erased.names(named), Reason.ERASED, tombstones.DETAIL)
    if has_fault.any():
        verdicts.reject(has_fault, Reason.BAD_PACKING, (paths, files.faults.get))
    detail = f"expected a place and name of layout {archive.name}"
    verdicts.reject(~is_known, Reason.OUTSIDE_LAYOUT, detail)
    if views == "frontal":
        view = mapped(listed["view"], clean_view).fill_null("")
        reject_unless_frontal(verdicts, view, among=is_set(view))
    rows = _rows_of(paths, files)
    table = taken(files.listed.select(["path", "size", "mtime_ns", "kind"]), rows)
    table = table.set_column(3, "is_picture", pc.equal(table["kind"], PICTURE))
    for name, column in zip(IDS.names, named.columns, strict=True):
        table = table.append_column(name, column)
    for name, column in zip(LISTED.names, listed.columns, strict=True):
        table = table.append_column(f"listed_{name}", column)
    check = f"{archive.name} {code.digest(type(archive).__module__, kinds.__name__)[:16]}"
    return Plan(verdicts.onto(table), check)


def _rows_of(paths: pa.Array, files: Files) -> Rows:
    """Return where the paths stand in the list of all files; nearly always they are the DICOM."""
    rows = np.flatnonzero(is_one_of(files.listed["kind"], [kinds.DICOM]))
    listed = whole(files.listed["path"])
    return rows if listed.take(pa.array(rows)).equals(paths) else positions(paths, listed)


def look_up(planned: Plan, store: ResultStore, keyring: Keyring, recorder: Recorder) -> Known:
    """Return which files are known, by path, size, time and what the layout says of them."""
    stored = store.load(recorder)
    files, to_read = planned.files, planned.to_read
    is_same = whole(stored["path"]).equals(whole(files["path"]))
    place = np.arange(len(files)) if is_same else positions(stored["path"], files["path"])
    # A settled file, or one that is not there any more (-1), has no result that counts.
    is_known = np.append(~planned.is_settled, False)[place]
    for name in ("size", "mtime_ns"):
        is_known &= (
            np.append(whole(files[name]).to_numpy(), -1)[place] == whole(stored[name]).to_numpy()
        )
    unchecked = np.flatnonzero(is_known & ~is_one_of(stored["check"], [planned.check]))
    digests = whole(stored["layout_digest"]).take(pa.array(unchecked)).to_pylist()
    tasks = planned.tasks(place[unchecked])
    is_known[unchecked] = [
        task.layout_digest(keyring) == digest for task, digest in zip(tasks, digests, strict=True)
    ]
    row_of = np.full(len(files), -1)
    row_of[place[is_known]] = np.flatnonzero(is_known)  # of several rows of a file the last one
    known = row_of[to_read]
    current = taken(stored, known[known >= 0])
    new = planned.tasks(to_read[known < 0])
    if len(current):
        recorder.say(known_line(len(current), len(new), "file"))
    return Known(current, new, _orphans(stored, current))


def known_line(known: int, new: int, what: str) -> str:
    """Return what a run says of the files or reports that need not be read."""
    return f"{counted(known, what)} known from before, {new} new"


def _orphans(stored: pa.Table, current: pa.Table) -> Places:
    """Return the places of the images that no current result stands for."""
    if len(stored) == len(current):
        return {}
    claimed, every = (
        pc.binary_join_element_wise(rows["shard"], rows["row"].cast(pa.string()), ":")
        for rows in (current, stored)
    )
    left = stored.filter(pa.array((positions(every, claimed) < 0) & is_valid(stored["shard"])))
    columns = [left[name].to_pylist() for name in ("image_key", "pixels_sha256", "shard", "row")]
    return {(key, sha): (shard, row) for key, sha, shard, row in zip(*columns, strict=True)}


def read_files(
    planned: Plan,
    store: ResultStore,
    context: Context,
    *,
    shard_images: int,
    workers: int,
    recorder: Recorder,
) -> pa.Table:
    """Return every image file with its result, in order of path; new files are read now.

    New files are kept in ``store`` by groups of ``shard_images`` files in order of path, each as
    soon as it and those before it are complete. A settled file has a result without content.
    """
    known = look_up(planned, store, context.keyring, recorder)
    new = _read_new(known, store, context, shard_images, workers=workers, recorder=recorder)
    if new:
        results = in_order(pa.concat_tables([known.current, *new])).combine_chunks()
    else:
        results = known.current
    results = store.shed(store.tidy(store.compact(results), planned.check))
    store.prune(results)
    return with_plan(planned, results, context)


def with_plan(planned: Plan, results: pa.Table, context: Context) -> pa.Table:
    """Add the settled files to the results of the others, and to all what the tables say."""
    settled = np.flatnonzero(planned.is_settled)
    if len(settled):
        tasks = planned.tasks(settled)
        unread_files = [unread(task, context.keyring, context.split_seed) for task in tasks]
        rows = as_table(unread_files)
        for name in ("reason", "detail"):
            column = whole(planned.files[name]).take(pa.array(settled))
            rows = rows.set_column(rows.schema.get_field_index(name), name, column)
        results = pa.concat_tables([results.select(STORED.names), rows])
    results = in_order(results)
    for name in (*IDS.names, *(f"listed_{name}" for name in LISTED.names)):
        results = results.append_column(name, planned.files[name])
    return results


def _read_new(
    known: Known,
    store: ResultStore,
    context: Context,
    shard_images: int,
    *,
    workers: int,
    recorder: Recorder,
) -> list[pa.Table]:
    grouped = groups(known.new, shard_images)
    group_of = {task.path: index for index, group in enumerate(grouped) for task in group}
    filling: dict[int, list[FileResult]] = defaultdict(list)
    stored: list[pa.Table] = []
    complete = 0
    for done, result in enumerate(process_all(grouped, context, workers=workers), start=1):
        filling[group_of[result.path]].append(result)
        # In order of the groups: a killed run then leaves the same groups as it would have read.
        while complete < len(grouped) and len(filling[complete]) == len(grouped[complete]):
            stored.append(store.write(at_known_places(filling.pop(complete), known.orphans)))
            complete += 1
        recorder.progress(done, len(known.new), unit="files")
    return stored


def groups(tasks: Sequence[Task], size: int) -> list[Sequence[Task]]:
    """Cut ``tasks`` into the groups that become shards."""
    return [tasks[start : start + size] for start in range(0, len(tasks), size)]


def at_known_places(results: Sequence[FileResult], orphans: Places) -> list[FileResult]:
    """Point results to the shard that already holds their image."""
    placed = []
    for result in results:
        place = orphans.get(_content(result)) if result.pixels is not None else None
        if place is not None:
            result = replace(result, pixels=None, shard=place[0], row=place[1])
        placed.append(result)
    return placed


def _content(result: FileResult) -> tuple[str, str]:
    return str(result.image_key), str(result.pixels_sha256)
