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

from lapvqa.dicom.reasons import Reason
from lapvqa.identity import Ids, Keyring
from lapvqa.ingest.archives.found import Files
from lapvqa.ingest.archives.protocol import Archive, Listed
from lapvqa.ingest.archives.recognise import is_picture
from lapvqa.ingest.one_file import Context, FileResult, Task, unread
from lapvqa.ingest.pool import process_all
from lapvqa.ingest.result_store import ResultStore
from lapvqa.ingest.verdicts import Candidate, Views
from lapvqa.recorder import Recorder

Places = Mapping[tuple[str, str], tuple[str, int]]
"""Shard and row of images by image key and sha256 of the pixels."""


@dataclass(frozen=True)
class Plan:
    """The archive's files in order of path: those settled without reading, and those to read."""

    settled: Mapping[str, Candidate]
    tasks: Sequence[Task]

    @property
    def paths(self) -> list[str]:
        """Every file that is taken or rejected, in order of path."""
        return sorted([*self.settled, *(task.path for task in self.tasks)])


@dataclass(frozen=True)
class Known:
    """The files to read: results that the store has, new tasks, and images that no file claims."""

    current: Mapping[str, FileResult]
    new: Sequence[Task]
    orphans: Places


def plan(
    archive: Archive,
    files: Files,
    *,
    views: Views,
    keyring: Keyring,
    split_seed: int,
) -> Plan:
    """Settle what path and tables alone decide: a zip that cannot be read, outside the
    layout, or not the view asked for."""
    settled: dict[str, Candidate] = {}
    tasks: list[Task] = []
    for path, fault in files.faults.items():
        task = Task(path, *files.facts[path], Ids(), is_picture=False)
        settled[path] = Candidate(unread(task, keyring, split_seed), Listed())
        settled[path].reject(Reason.BAD_PACKING, fault)
    for path in archive.images:
        ids = archive.ids(path)
        task = Task(path, *files.facts[path], ids or Ids(), is_picture(path))
        if ids is None:
            candidate = Candidate(unread(task, keyring, split_seed), Listed())
            detail = f"expected a place and name of layout {archive.name}"
            candidate.reject(Reason.OUTSIDE_LAYOUT, detail)
            settled[path] = candidate
            continue
        tasks.append(task)
        if views == "frontal":
            candidate = Candidate(unread(task, keyring, split_seed), archive.listed(path))
            if candidate.view and candidate.reject_unless_frontal():
                settled[path] = candidate
                tasks.pop()
    return Plan(settled, tasks)


def look_up(
    tasks: Sequence[Task], store: ResultStore, keyring: Keyring, recorder: Recorder
) -> Known:
    """Return which files are known, by path, size, time and what the layout says of them."""
    known = {
        (result.path, result.size, result.mtime_ns, result.layout_digest): result
        for result in store.load(recorder)
    }
    current: dict[str, FileResult] = {}
    new: list[Task] = []
    for task in tasks:
        result = known.get((task.path, task.size, task.mtime_ns, task.layout_digest(keyring)))
        if result is None:
            new.append(task)
        else:
            current[task.path] = result
    claimed = {(result.shard, result.row) for result in current.values()}
    orphans = {
        _content(result): (result.shard, result.row or 0)
        for result in known.values()
        if result.shard is not None and (result.shard, result.row) not in claimed
    }
    if current:
        recorder.say(f"{len(current)} files are known from before, {len(new)} are new")
    return Known(current, new, orphans)


def read_files(
    planned: Plan,
    archive: Archive,
    store: ResultStore,
    context: Context,
    *,
    shard_images: int,
    workers: int,
    recorder: Recorder,
) -> list[Candidate]:
    """Return every image file with its result, in order of path; new files are read now.

    New files are kept in ``store`` by groups of ``shard_images`` files in order of path, each as
    soon as it and those before it are complete.
    """
    known = look_up(planned.tasks, store, context.keyring, recorder)
    new = _read_new(known, store, context, shard_images, workers=workers, recorder=recorder)
    results = store.compact([*known.current.values(), *new])
    store.prune(results)
    by_path = {result.path: result for result in results}
    return [
        planned.settled.get(path) or Candidate(by_path[path], archive.listed(path))
        for path in planned.paths
    ]


def _read_new(
    known: Known,
    store: ResultStore,
    context: Context,
    shard_images: int,
    *,
    workers: int,
    recorder: Recorder,
) -> list[FileResult]:
    grouped = groups(known.new, shard_images)
    group_of = {task.path: index for index, group in enumerate(grouped) for task in group}
    filling: dict[int, list[FileResult]] = defaultdict(list)
    stored: list[FileResult] = []
    complete = 0
    for done, result in enumerate(process_all(grouped, context, workers=workers), start=1):
        filling[group_of[result.path]].append(result)
        # In order of the groups: a killed run then leaves the same groups as it would have read.
        while complete < len(grouped) and len(filling[complete]) == len(grouped[complete]):
            stored += store.write(at_known_places(filling.pop(complete), known.orphans))
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
