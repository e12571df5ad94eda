"""Read on many machines that share a file system: each group of files is written down as a file.

``write_groups`` writes one such file per future shard into the store; any process anywhere may
``read_group`` it, twice if need be: the same group gives the same results. The stage then finds
them all known and has only the tables left to make. No identity and no key passes through a
scheduler: they stay in the project's private folder.
"""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

from lapvqa import storage
from lapvqa.errors import ConfigError
from lapvqa.identity import Ids, Keyring, load_key
from lapvqa.ingest.ingest import open_source
from lapvqa.ingest.one_file import Context, Task
from lapvqa.ingest.plan import at_known_places, groups, look_up
from lapvqa.ingest.pool import process_all
from lapvqa.ingest.result_store import open_files
from lapvqa.ingest.tombstones import load_tombstones
from lapvqa.job import Job
from lapvqa.params import IngestParams


def write_groups(params: IngestParams, job: Job) -> list[str]:
    """Write a file for each group of files that has to be read; return their names."""
    source = open_source(params, job)
    known = look_up(source.planned, source.store, source.keyring, job.recorder)
    for stale in source.store.folder.glob("group-*.json"):
        stale.unlink()
    names = []
    for number, group in enumerate(groups(known.new, params.shard_images)):
        name = f"{source.store.folder.name}/group-{number:05d}.json"
        places = [[*content, *place] for content, place in known.orphans.items()]
        tasks = [astuple(task) for task in group]
        path = job.project.work_dir("ingest") / name
        storage.write_json(path, {"tasks": tasks, "places": places})
        names.append(name)
    return names


def read_group(params: IngestParams, job: Job, name: str) -> int:
    """Read the files of one group into the store; return their number.

    Raises ConfigError if this machine has other code, settings or another key than the one that
    wrote the group: its images would not be the same.
    """
    folder = job.folders["source"]
    key = load_key(folder, job)
    store = open_files(job.project.work_dir("ingest"), folder, params, key)
    if store.folder.name != Path(name).parent.name:
        raise ConfigError(
            "expected the same code, packages, settings and key as where the run was started, "
            f"found others (store {store.folder.name} instead of {Path(name).parent.name})",
            hint="install the same commit and lock on every worker, and share the project folder",
        )
    group = storage.read_json(job.project.work_dir("ingest") / name, made_by="ingest")
    tasks = [
        Task(path, size, mtime, Ids(*ids), is_picture)
        for path, size, mtime, ids, is_picture in group["tasks"]
    ]
    places = {(image, digest): (shard, row) for image, digest, shard, row in group["places"]}
    keyring = Keyring(key, keep_ids=params.deid.keep_ids)
    erased = load_tombstones(job.project, keyring)
    context = Context(folder, keyring, params.split.seed, params.limits, erased)
    results = list(process_all([tasks], context, workers=job.machine.workers))
    store.write(at_known_places(results, places))
    return len(results)
