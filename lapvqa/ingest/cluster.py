"""Reading spread over many machines that share a file system: groups of files as files.

``write_groups`` leaves one file per future shard in the store; any process anywhere may
``read_group`` it, again if need be: the same group gives the same files. What is read so is known
to the stage when it runs, which then has nothing left but the tables. No identity and no key
passes through a scheduler: they stay in the project's private folder.
"""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

from lapvqa import storage
from lapvqa.errors import ConfigError
from lapvqa.identity import Keyring, load_key
from lapvqa.ingest.archives import Ids
from lapvqa.ingest.ingest import open_source
from lapvqa.ingest.plan import at_known_places, groups, look_up
from lapvqa.ingest.pool import Context, Task, process_all
from lapvqa.ingest.result_store import open_files
from lapvqa.machine import load_machine
from lapvqa.params import load_params
from lapvqa.project import Project
from lapvqa.recorder import Recorder


def write_groups(project: Project, recorder: Recorder) -> list[str]:
    """Write a file for each group of files that has to be read; return their names."""
    params, machine = load_params(project.params).ingest, load_machine(project)
    source = open_source(params, project, machine, recorder)
    known = look_up(source.planned.tasks, source.store, recorder)
    for stale in source.store.folder.glob("group-*.json"):
        stale.unlink()
    names = []
    for number, group in enumerate(groups(known.new, params.shard_images)):
        name = f"{source.store.folder.name}/group-{number:05d}.json"
        places = [[*content, *place] for content, place in known.orphans.items()]
        tasks = [[task.path, task.size, task.mtime_ns, astuple(task.ids)] for task in group]
        path = project.work_dir("ingest") / name
        storage.write_json(path, {"tasks": tasks, "places": places})
        names.append(name)
    return names


def read_group(project: Project, name: str, recorder: Recorder) -> int:
    """Read the files of one group into the store; return their number.

    Raises ConfigError if this machine has other code, settings or another key than the one that
    wrote the group: its images would not be the same.
    """
    params, machine = load_params(project.params), load_machine(project)
    folder = machine.folder("source", params.inventory, project)
    key = load_key(folder, project, machine, recorder)
    store = open_files(project.work_dir("ingest"), folder, params.ingest, key)
    if store.folder.name != Path(name).parent.name:
        raise ConfigError(
            "expected the same code, packages, settings and key as where the run was started, "
            f"found others (store {store.folder.name} instead of {Path(name).parent.name})",
            hint="install the same commit and lock on every worker, and share the project folder",
        )
    group = storage.read_json(project.work_dir("ingest") / name, made_by="ingest")
    tasks = [Task(path, size, mtime, Ids(*ids)) for path, size, mtime, ids in group["tasks"]]
    places = {(image, digest): (shard, row) for image, digest, shard, row in group["places"]}
    keyring = Keyring(key, keep_ids=params.ingest.deid.keep_ids)
    context = Context(folder, keyring, params.ingest.split.seed, params.ingest.limits)
    results = list(process_all([tasks], context, workers=machine.workers))
    store.write(at_known_places(results, places))
    return len(results)
