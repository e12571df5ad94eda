"""Read what has not been read yet, and put every file of the archive beside what it came to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lapvqa.dicom.identity import Keyring
from lapvqa.dicom.layouts import Archive, Ids, Listed
from lapvqa.dicom.reasons import Reason
from lapvqa.dicom.results import FileResult
from lapvqa.dicom.store import ResultStore, Stored
from lapvqa.dicom.verdicts import Candidate, Views
from lapvqa.dicom.workers import Context, Task, process_all, unread
from lapvqa.recorder import Recorder

BATCH_FILES = 8

Facts = tuple[int, int]
"""Size and modification time of a file, as the inventory lists them."""


@dataclass(frozen=True)
class Plan:
    """The archive's files in order of path: those settled without reading, and those to read."""

    settled: Mapping[str, Candidate]
    tasks: Sequence[Task]


def plan(
    archive: Archive,
    facts: Mapping[str, Facts],
    *,
    views: Views,
    keyring: Keyring,
    split_seed: int,
) -> Plan:
    """Settle what path and tables alone decide: outside the layout, or not the view asked for."""
    settled: dict[str, Candidate] = {}
    tasks: list[Task] = []
    for path in archive.images:
        ids = archive.ids(path)
        task = Task(path, *facts[path], ids or Ids())
        result = unread(task, keyring, split_seed)
        if ids is None:
            candidate = Candidate(result, Listed(), None)
            candidate.reject(Reason.OUTSIDE_LAYOUT, "expected pNN/pSUBJECT/sSTUDY/ in its path")
        else:
            candidate = Candidate(result, archive.listed(path), None)
            if views == "frontal" and candidate.view:
                candidate.reject_unless_frontal()
        if candidate.reason is None:
            tasks.append(task)
        else:
            settled[path] = candidate
    return Plan(settled, tasks)


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
    soon as it is complete, so that a group can become a shard as it stands.
    """
    known = {_as_listed(stored.result): stored for stored in store.load(recorder)}
    current = {
        task.path: known[_as_listed(task)] for task in planned.tasks if _as_listed(task) in known
    }
    new = [task for task in planned.tasks if task.path not in current]
    if current:
        recorder.say(f"{len(current)} files are known from before, {len(new)} are new")
    group_of = {path: index // shard_images for index, path in enumerate(archive.images)}
    current |= _read_new(new, group_of, store, context, workers=workers, recorder=recorder)
    store.prune({stored.place.chunk for stored in current.values()})
    return [
        planned.settled.get(path)
        or Candidate(current[path].result, archive.listed(path), current[path].place)
        for path in archive.images
    ]


def _as_listed(file: Task | FileResult) -> tuple[str, int, int]:
    return file.path, file.size, file.mtime_ns


def _read_new(
    tasks: Sequence[Task],
    group_of: Mapping[str, int],
    store: ResultStore,
    context: Context,
    *,
    workers: int,
    recorder: Recorder,
) -> dict[str, Stored]:
    groups: dict[int, list[Task]] = defaultdict(list)
    for task in tasks:
        groups[group_of[task.path]].append(task)
    batches = [
        group[start : start + BATCH_FILES]
        for group in groups.values()
        for start in range(0, len(group), BATCH_FILES)
    ]
    filling: dict[int, list[FileResult]] = defaultdict(list)
    stored: dict[str, Stored] = {}
    for done, result in enumerate(process_all(batches, context, workers=workers), start=1):
        group = group_of[result.path]
        filling[group].append(result)
        if len(filling[group]) == len(groups[group]):
            stored |= {entry.result.path: entry for entry in store.write(filling.pop(group))}
        recorder.progress(done, len(tasks), unit="files")
    return stored
