"""Finished work of ingest, kept outside DVC's outputs: a killed run continues from here.

DVC deletes a stage's outputs before it runs, so results live in .lapvqa/work/ingest/<digest>/:
shards ``images-<digest>.arrow`` of the images taken, and ``rows-<digest>.parquet`` with a row per
file, written after the shard it points to. A row counts for a file as long as path, size and
modification time are those of the inventory.

A shard is written once and never changes; data/images/ holds links to it. Once no file stands for
one of its images any more (deleted, replaced), a new shard without it takes its place.

The folder's digest covers the code and libraries that make a row or a pixel, the key, the seed and
the archive's folder. Not the archive's layout: each row keeps a digest of what the layout said of
its file (``Task.layout_digest``), and ``plan.look_up`` compares it. Rows hold study dates, so the
folder is private.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lapvqa import code, storage
from lapvqa.dicom.reasons import TRANSIENT
from lapvqa.errors import MissingArtifactError, SchemaError
from lapvqa.identity import key_id
from lapvqa.images.shards import map_shard, shard_name, write_shard
from lapvqa.ingest.one_file import RESULTS, FileResult
from lapvqa.params import IngestParams
from lapvqa.recorder import Recorder

_LIBRARIES = (
    "pydicom", "numpy", "numba", "opencv-python-headless", "pillow", "pylibjpeg",
    "pylibjpeg-openjpeg", "pylibjpeg-rle", "python-gdcm", "pyjpegls",
)  # fmt: skip
_KEPT_STORES = 2


class ResultStore:
    """Rows and images of the files that were read so far, under one digest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mapped: dict[str, NDArray[np.uint8]] = {}

    def write(self, finished: Iterable[FileResult]) -> list[FileResult]:
        """Add results, all or none; return them as ``load`` would, sorted by path.

        Their images, but for those that lie in a shard already, become a new shard.
        """
        results = sorted(finished, key=lambda result: result.path)
        new = [result for result in results if result.pixels is not None]
        shard = self._write_shard(new, [result.pixels for result in new]) if new else None
        places = {result.path: row for row, result in enumerate(new)}
        placed = [
            replace(result, pixels=None, shard=shard, row=places[result.path])
            if result.path in places
            else result
            for result in results
        ]
        return self._write_rows(placed)

    def load(self, recorder: Recorder) -> list[FileResult]:
        """Return all results that may be used again.

        Damaged files of the store are reported and dropped, so that their images are read again;
        transient rejects are left out for the same reason.
        """
        results: list[FileResult] = []
        for path in sorted(self.folder.glob("rows-*.parquet")):
            try:
                rows = _read_rows(path)
            except (SchemaError, MissingArtifactError) as error:
                recorder.say(f"dropped damaged rows of finished work: {error.message}")
                path.unlink()
                continue
            results += rows
        sizes = {shard: self._size(shard, recorder) for shard in sorted(_shards(results))}
        return [
            result
            for result in results
            if result.reason not in TRANSIENT
            and (result.shard is None or (result.row or 0) < sizes[result.shard])
        ]

    def images(self, shard: str) -> NDArray[np.uint8]:
        """Return the images of a shard [N, 384, 384], mapped."""
        if shard not in self._mapped:
            self._mapped[shard] = map_shard(self.folder / shard)
        return self._mapped[shard]

    def compact(self, current: Sequence[FileResult]) -> list[FileResult]:
        """Rewrite the shards with images that no current result stands for; return the results.

        Images withdrawn from the archive must not remain here. The other shards keep their bytes.
        """
        used: dict[str, list[FileResult]] = defaultdict(list)
        for result in current:
            if result.shard is not None:
                used[result.shard].append(result)
        moved: dict[str, FileResult] = {}
        for shard, results in used.items():
            images = self.images(shard)
            rows = sorted({result.row or 0 for result in results})
            if len(rows) == len(images):
                continue
            first = {result.row or 0: result for result in reversed(results)}
            target = self._write_shard([first[row] for row in rows], [images[row] for row in rows])
            new_row = {row: index for index, row in enumerate(rows)}
            again = [
                replace(result, shard=target, row=new_row[result.row or 0]) for result in results
            ]
            moved |= {result.path: result for result in self._write_rows(again)}
        return [moved.get(result.path, result) for result in current]

    def prune(self, current: Sequence[FileResult]) -> None:
        """Delete the files that no current result needs."""
        for group in self.folder.glob("group-*.json"):  # left by a cluster that has read it
            group.unlink()
        needed = {result.held_in for result in current} | _shards(current)
        for path in [*self.folder.glob("rows-*.parquet"), *self.folder.glob("images-*.arrow")]:
            if path.name not in needed:
                self._mapped.pop(path.name, None)
                path.unlink()

    def export(self, path: Path, shard: str, images: Sequence[FileResult]) -> None:
        """Make ``path`` hold ``images`` of ``shard``, in order of row: a link if it is all of them.

        A link costs neither space nor time; nobody ever writes into a shard.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if len(images) == len(self.images(shard)):
            try:
                path.hardlink_to(self.folder / shard)
            except OSError:  # another file system, or one without links
                shutil.copyfile(self.folder / shard, path)
            return
        rows = [image.row or 0 for image in images]
        write_shard(path, [str(image.image_key) for image in images], self.images(shard)[rows])

    def _write_shard(
        self, results: Sequence[FileResult], images: Sequence[NDArray[np.uint8] | None]
    ) -> str:
        keys = [str(result.image_key) for result in results]
        name = shard_name(keys, [str(result.pixels_sha256) for result in results])
        write_shard(
            self.folder / name, keys, np.stack([image for image in images if image is not None])
        )
        return name

    def _write_rows(self, results: Sequence[FileResult]) -> list[FileResult]:
        values = [[str(getattr(result, field)) for field in RESULTS.names] for result in results]
        name = f"rows-{hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]}.parquet"
        columns = {field: [getattr(result, field) for result in results] for field in RESULTS.names}
        storage.write_table(self.folder / name, pa.table(columns, schema=RESULTS), RESULTS)
        return [replace(result, held_in=name) for result in results]

    def _size(self, shard: str, recorder: Recorder) -> int:
        if not (self.folder / shard).exists():  # rewritten since, or deleted to have it made again
            return 0
        try:
            return len(self.images(shard))
        except SchemaError as error:
            recorder.say(f"dropped a damaged shard of finished work: {error.message}")
            (self.folder / shard).unlink()
            return 0


def forget(work_dir: Path, unwanted: Callable[[FileResult], bool]) -> int:
    """Drop the rejects that ``unwanted`` selects from every store; return how many files they are.

    The next run reads those files again. Stores of other code, which it will not use, stay as they
    are.
    """
    paths: set[str] = set()
    for path in sorted(work_dir.glob("*/rows-*.parquet")):
        try:
            results = _read_rows(path)
        except SchemaError:
            continue
        dropped = [result for result in results if result.reason and unwanted(result)]
        if not dropped:
            continue
        dropped_paths = {result.path for result in dropped}
        kept = [result for result in results if result.path not in dropped_paths]
        if kept:
            ResultStore(path.parent)._write_rows(kept)
        path.unlink()
        paths |= dropped_paths
    return len(paths)


def open_files(work_dir: Path, source: Path, params: IngestParams, key: bytes) -> ResultStore:
    """Open the store for this source, code, key and settings; delete all but the latest two."""
    described = {
        "source": str(source.resolve()),
        "key": key_id(key),
        "keep_ids": params.deid.keep_ids,
        "seed": params.split.seed,
        "code": code.digest("lapvqa.ingest.worker"),
        "libraries": [_version(name) for name in _LIBRARIES],
    }
    return ResultStore(open_folder(work_dir, "files", described))


def open_folder(work_dir: Path, kind: str, described: Mapping[str, object]) -> Path:
    """Open the private folder for ``kind`` of work under these facts; keep the latest two only."""
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
    folder = work_dir / f"{kind}-{digest}"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.touch()
    for partial in folder.glob(".*.tmp"):  # of a run that was killed; the stage has a lock
        partial.unlink()
    others = sorted(work_dir.glob(f"{kind}-*/"), key=lambda path: path.stat().st_mtime_ns)
    for old in others[:-_KEPT_STORES]:
        shutil.rmtree(old)
    return folder


def _read_rows(path: Path) -> list[FileResult]:
    table = storage.read_table(path, RESULTS, made_by="ingest")
    columns = [table[name].to_pylist() for name in RESULTS.names]
    return [
        FileResult(**dict(zip(RESULTS.names, values, strict=True)), held_in=path.name)
        for values in zip(*columns, strict=True)
    ]


def _shards(results: Iterable[FileResult]) -> set[str]:
    return {result.shard for result in results if result.shard is not None}


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "absent"
