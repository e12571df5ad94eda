"""Finished work of ingest, kept outside DVC's outputs: a killed run continues from here.

DVC deletes a stage's outputs before it runs, so results live in .lapvqa/work/ingest/<digest>/:
chunks of ``<name>.arrow`` (pixels of the files taken, in order of path) and ``<name>.parquet``
(a row per file, written last: its existence means the chunk is whole). A row counts for a file
as long as path, size and modification time are the inventory's.

The digest covers what a row or a pixel depends on: the code and libraries that make them, the
key, the seed, and the archive's folder. The rows hold study dates, so the folder is private.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lapvqa import storage
from lapvqa.data import geometry
from lapvqa.data.shards import map_shard, write_shard
from lapvqa.dicom import (
    grayscale,
    header,
    identity,
    parse,
    pixels,
    render,
    results,
    splits,
    workers,
)
from lapvqa.dicom.layouts import mimic
from lapvqa.dicom.reasons import TRANSIENT
from lapvqa.dicom.results import RESULTS, FileResult
from lapvqa.errors import MissingArtifactError, SchemaError
from lapvqa.recorder import Recorder
from lapvqa.schemas import STORED_SIZE

# Whose code and version a stored row or pixel depends on.
_CODE = (
    geometry, grayscale, header, identity, mimic, parse, pixels, render, results, splits, workers,
)  # fmt: skip
_LIBRARIES = (
    "pydicom", "numpy", "opencv-python-headless", "pillow", "pylibjpeg", "pylibjpeg-openjpeg",
    "pylibjpeg-rle", "pyjpegls", "python-gdcm",
)  # fmt: skip
_KEPT_STORES = 2


@dataclass(frozen=True, slots=True)
class Place:
    """Where a result lies in the store."""

    chunk: str
    row: int
    """Row of its image among the chunk's; -1 for a reject."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A result, without its pixels, and where it lies."""

    result: FileResult
    place: Place


class ResultStore:
    """Rows and pixels of the files that were read so far, under one digest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._mapped: dict[str, NDArray[np.uint8]] = {}

    def write(self, finished: Iterable[FileResult]) -> list[Stored]:
        """Add a chunk of results, whole or not at all; return them as ``load`` would."""
        rows = sorted(finished, key=lambda result: result.path)
        name = _chunk_name(rows)
        images = [row.pixels for row in rows if row.pixels is not None]
        if images:
            keys = [str(row.image_key) for row in rows if row.pixels is not None]
            write_shard(self._arrow(name), keys, np.stack(images))
        columns = {field: [getattr(row, field) for row in rows] for field in RESULTS.names}
        storage.write_table(self._parquet(name), pa.table(columns, schema=RESULTS), RESULTS)
        return _placed(name, [replace(row, pixels=None) for row in rows])

    def load(self, recorder: Recorder) -> list[Stored]:
        """Return all results that may be used again.

        A damaged chunk is said and dropped, so its files are read again; transient rejects are
        left out for the same reason.
        """
        found: list[Stored] = []
        for path in sorted(self.folder.glob("*.parquet")):
            try:
                table = storage.read_table(path, RESULTS, made_by="ingest")
                self._check(path.stem, table)
            except (SchemaError, MissingArtifactError) as error:
                recorder.say(f"dropped a damaged chunk of finished work: {error.message}")
                self._drop(path.stem)
                continue
            found += _placed(path.stem, [FileResult(**values) for values in table.to_pylist()])
        return [stored for stored in found if stored.result.reason not in TRANSIENT]

    def images(self, chunk: str) -> NDArray[np.uint8]:
        """Return the images of a chunk [N, 384, 384], mapped."""
        if chunk not in self._mapped:
            self._mapped[chunk] = map_shard(self._arrow(chunk))
        return self._mapped[chunk]

    def export(self, path: Path, keys: Sequence[str], places: Sequence[Place]) -> None:
        """Make the shard ``path`` of the images at ``places``: a link if they are one whole chunk.

        A link costs neither space nor time; nobody ever writes into a shard.
        """
        first = places[0].chunk
        whole = [Place(first, row) for row in range(len(self.images(first)))]
        if list(places) == whole:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                path.hardlink_to(self._arrow(first))
            except OSError:  # another file system, or one without links
                shutil.copyfile(self._arrow(first), path)
            return
        stacked = np.empty((len(places), STORED_SIZE, STORED_SIZE), np.uint8)
        for index, place in enumerate(places):
            stacked[index] = self.images(place.chunk)[place.row]
        write_shard(path, keys, stacked)

    def prune(self, live: set[str]) -> None:
        """Delete the chunks that no file of the archive needs any more."""
        for path in self.folder.glob("*.parquet"):
            if path.stem not in live:
                self._drop(path.stem)

    def _check(self, chunk: str, table: pa.Table) -> None:
        taken = table["reason"].null_count
        if taken and len(self.images(chunk)) != taken:
            raise SchemaError(f"{chunk}.arrow: expected {taken} images")

    def _drop(self, chunk: str) -> None:
        self._mapped.pop(chunk, None)
        self._parquet(chunk).unlink(missing_ok=True)
        self._arrow(chunk).unlink(missing_ok=True)

    def _arrow(self, chunk: str) -> Path:
        return self.folder / f"{chunk}.arrow"

    def _parquet(self, chunk: str) -> Path:
        return self.folder / f"{chunk}.parquet"


def _placed(chunk: str, results_by_path: Sequence[FileResult]) -> list[Stored]:
    row, placed = 0, []
    for result in results_by_path:
        placed.append(Stored(result, Place(chunk, row if result.reason is None else -1)))
        row += result.reason is None
    return placed


def open_store(work_dir: Path, source: Path, facts: dict[str, str | int | bool]) -> ResultStore:
    """Open the store for this source, code and ``facts``; delete all but the latest two."""
    described = {
        **facts,
        "source": str(source.resolve()),
        "code": [storage.sha256_file(Path(str(module.__file__))) for module in _CODE],
        "libraries": [_version(name) for name in _LIBRARIES],
    }
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
    store = ResultStore(work_dir / digest)
    store.folder.touch()
    for partial in store.folder.glob(".*.tmp"):  # of a run that was killed; the stage has a lock
        partial.unlink()
    stores = [path for path in work_dir.iterdir() if path.is_dir()]
    stores.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for old in stores[_KEPT_STORES:]:
        shutil.rmtree(old)
    return store


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "absent"


def _chunk_name(rows: Sequence[FileResult]) -> str:
    listed = json.dumps([(row.path, row.size, row.mtime_ns) for row in rows])
    return hashlib.sha256(listed.encode()).hexdigest()[:16]
