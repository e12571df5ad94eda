"""What the last run wrote, kept as links: a run of which nothing differs gives it back.

DVC deletes a stage's outputs before it runs, so they are linked into the private work folder, with
a digest of all that they were made of: the inventory, the parameters, key, waivers, tombstones,
where reports are, the stores of finished work, libraries, and every file of the code (more than
decides a result, and cheaper than to ask which do: what is wrongly asked again costs seconds). If
all are the same, a full run would write the same bytes, and ``tests/ingest/test_last_run.py``
proves it.

Nothing is kept of a run with rejects whose cause may pass, or that a file system without links
would have to copy.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from pathlib import Path
from typing import Any

from lapvqa import code, storage
from lapvqa.dicom.reasons import TRANSIENT, Reason
from lapvqa.identity import key_id, load_key
from lapvqa.ingest.columns import is_one_of
from lapvqa.ingest.result_store import LIBRARIES, version
from lapvqa.job import Counts, Job
from lapvqa.params import IngestParams
from lapvqa.schemas import REJECTS

_MAY_PASS = TRANSIENT | {Reason.BAD_PACKING}
"""A zip may be unreadable because of the disk it lies on."""
_FACTS = "made_of.json"


class LastRun:
    """The outputs of the last run, and what they were made of."""

    def __init__(self, params: IngestParams, job: Job) -> None:
        self._params, self._job = params, job
        self._folder = job.project.work_dir("ingest") / "last"
        project = job.project
        self._tables = [
            project.studies, project.labels, project.demographics, project.rejects,
            project.companions, project.images,
        ]  # fmt: skip
        """The manifest is the last."""

    def give_back(self) -> Counts | None:
        """Put the last run's outputs back and say what it said; None if anything differs."""
        project, facts = self._job.project, self._facts()
        if not facts or facts["made_of"] != self._made_of():
            return None
        held = {path.name: self._folder / path.name for path in self._tables}
        images = self._folder / project.images_dir.name
        if facts["tables"] != {name: _sha256(path) for name, path in held.items()}:
            return None
        if facts["shards"] != _state(images):
            return None
        if project.images_dir.exists():
            shutil.rmtree(project.images_dir)
        for shard in images.iterdir():
            _link(shard, project.images_dir / shard.name)
        _link(held[project.rejects.name], project.work_dir("ingest") / project.rejects.name)
        for path in self._tables:
            _link(held[path.name], path)
        for line in facts["said"]:
            self._job.recorder.say(line)
        self._job.recorder.facts(facts["facts"])
        counts: Counts = facts["counts"]
        return counts

    def forget(self) -> None:
        """Drop what is kept: a run begins that may end otherwise, and withdrawn images must go."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def keep(self, counts: Counts, facts: dict[str, object], said: list[str]) -> None:
        """Keep the outputs as they lie there now, with the run's counts, facts and lines."""
        project = self._job.project
        rejects = storage.read_table(project.rejects, REJECTS, made_by="ingest")
        if is_one_of(rejects["reason"], _MAY_PASS).any():
            return
        self._folder.mkdir(mode=0o700)
        images = self._folder / project.images_dir.name
        images.mkdir()
        try:
            for path in self._tables:
                (self._folder / path.name).hardlink_to(path)
            for shard in project.images_dir.iterdir():
                (images / shard.name).hardlink_to(shard)
        except OSError:  # no links here
            self.forget()
            return
        known = {
            "made_of": self._made_of(),
            "tables": {path.name: _sha256(path) for path in self._tables},
            "shards": _state(images),
            "counts": counts,
            "facts": facts,
            "said": said,
        }
        storage.write_bytes(self._folder / _FACTS, json.dumps(known).encode())

    def _facts(self) -> dict[str, Any]:
        try:
            facts: dict[str, Any] = json.loads((self._folder / _FACTS).read_bytes())
        except (OSError, ValueError):
            return {}
        return facts

    def _made_of(self) -> str:
        """Return a digest of all that decides the outputs."""
        job, source = self._job, self._job.folders["source"]
        work_dir = job.project.work_dir("ingest")
        waivers = job.project.waivers
        described = {
            "inventory": storage.sha256_file(job.project.inventory("source")),
            "source": str(source.resolve()),
            "parameters": self._params.model_dump_json(),
            "key": key_id(load_key(source, job)),
            "reports": job.machine.reports.digest(),
            "waivers": _sha256(waivers),
            "tombstones": _sha256(job.project.tombstones),
            "stores": [_state(path) for path in sorted(work_dir.glob("*-*/"))],
            "libraries": [platform.python_version(), *map(version, (*LIBRARIES, "pyarrow"))],
            "code": code.digest_of_all(),
        }
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def _state(folder: Path) -> dict[str, list[int]]:
    """Return size and time of every file of a folder: of what is written once, whether it is."""
    status = {path.name: path.stat() for path in sorted(folder.glob("[!.]*"))}
    return {name: [own.st_size, own.st_mtime_ns] for name, own in status.items()}


def _sha256(path: Path) -> str:
    return storage.sha256_file(path) if path.exists() else ""


def _link(source: Path, target: Path) -> None:
    """Make ``target`` the same file, replacing it at once."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = storage.temporary_path(target)
    temporary.unlink(missing_ok=True)
    temporary.hardlink_to(source)
    temporary.replace(target)
    temporary.unlink(missing_ok=True)  # of two links to one file rename does nothing
