"""Finished work of ingest, kept outside DVC's outputs: a killed run continues from here.

DVC deletes a stage's outputs before it runs, so results live in .lapvqa/work/ingest/<digest>/:
shards ``images-<digest>.arrow`` of the images taken, and ``rows-<digest>.parquet`` with a row per
file, written after the shard it points to. A row counts for a file as long as path, size and
modification time are those of the inventory.

A shard is written once and never changes; data/images/ holds links to it. Once no file stands for
one of its images any more (deleted, replaced), a new shard without it takes its place.

The folder's digest covers the code and libraries that make a row or a pixel, the key, the seed and
the archive's folder. Not the archive's layout: each row keeps a digest of what the layout said of
its file (``Task.layout_digest``), and ``plan.look_up`` compares it, unless the same code of the
layout did so before (``check``). Rows hold study dates, so the folder is private.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lapvqa import code, storage
from lapvqa.dicom.reasons import TRANSIENT, Reason
from lapvqa.errors import MissingArtifactError, SchemaError
from lapvqa.identity import key_id
from lapvqa.images.shards import map_shard, shard_name, write_shard
from lapvqa.ingest.columns import (
    Rows,
    counted,
    digest,
    in_order,
    is_one_of,
    kept,
    numbered,
    positions,
    replaced,
    whole,
)
from lapvqa.ingest.one_file import RESULTS, STORED, FileResult, as_results, as_table, buried
from lapvqa.ingest.tombstones import Tombstones
from lapvqa.params import IngestParams
from lapvqa.recorder import Recorder

LIBRARIES = (
    "pydicom", "numpy", "numba", "opencv-python-headless", "pillow", "pylibjpeg",
    "pylibjpeg-openjpeg", "pylibjpeg-rle", "python-gdcm", "pyjpegls",
)  # fmt: skip
_KEPT_STORES = 2
_CHECK = "lapvqa.layout"
"""Fact of a file of rows: the code of the layout by which all of them were checked."""
_MAX_UNCHECKED, _MAX_ROW_FILES = 5000, 32
"""Beyond either the rows are written anew, as one file, which costs less than reading many."""


class ResultStore:
    """Rows and images of the files that were read so far, under one digest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mapped: dict[str, NDArray[np.uint8]] = {}

    def write(self, finished: Iterable[FileResult]) -> pa.Table:
        """Add results, all or none; return them as ``load`` would, sorted by path.

        Their images, but for those that lie in a shard already, become a new shard.
        """
        results = sorted(finished, key=lambda result: result.path)
        new = [result for result in results if result.pixels is not None]
        if new:
            keys = [str(result.image_key) for result in new]
            digests = [str(result.pixels_sha256) for result in new]
            shard = self._write_shard(keys, digests, [result.pixels for result in new])
            places = {result.path: row for row, result in enumerate(new)}
            results = [
                replace(result, shard=shard, row=places[result.path])
                if result.path in places
                else result
                for result in results
            ]
        return self._write_rows(as_table(results))

    def load(self, recorder: Recorder) -> pa.Table:
        """Return all results that may be used again: ``STORED``, and who checked them (``check``).

        Damaged files of the store are reported and dropped, so that their images are read again;
        transient rejects are left out for the same reason.
        """
        tables = []
        for path in sorted(self.folder.glob("rows-*.parquet")):
            try:
                tables.append(_read_rows(path))
            except (SchemaError, MissingArtifactError) as error:
                recorder.say(f"dropped damaged rows of finished work: {error.message}")
                path.unlink()
        results = pa.concat_tables(tables) if tables else _held(RESULTS.empty_table(), "", "")
        shards = whole(results["shard"]).dictionary_encode()
        sizes = [self._size(shard, recorder) for shard in shards.dictionary.to_pylist()]
        # The last size is that of no shard, whose code is -1: a reject has no row to look for.
        size = np.array([*sizes, 1])[shards.indices.fill_null(-1).to_numpy()]
        is_there = whole(results["row"]).fill_null(0).to_numpy() < size
        return kept(results, is_there & ~is_one_of(results["reason"], TRANSIENT))

    def images(self, shard: str) -> NDArray[np.uint8]:
        """Return the images of a shard [N, 384, 384], mapped."""
        if shard not in self._mapped:
            self._mapped[shard] = map_shard(self.folder / shard)
        return self._mapped[shard]

    def compact(self, current: pa.Table) -> pa.Table:
        """Rewrite the shards with images that no current result stands for; return the results.

        Images withdrawn from the archive must not remain here. The other shards keep their bytes.
        """
        shards, rows = numbered(current["shard"]), _rows(current)
        names = pc.unique(current["shard"]).drop_null().sort().to_pylist()
        used = [np.unique(rows[shards == number]) for number in range(len(names))]
        moved = []
        is_moved = np.zeros(len(current), bool)
        for number, shard in enumerate(names):
            images, stood_for = self.images(shard), used[number]
            if len(stood_for) == len(images):
                continue
            own = shards == number
            results = current.filter(pa.array(own))
            is_moved |= own
            first = results.take(positions(pa.array(stood_for), pa.array(_rows(results))))
            keys, digests = (first[name].to_pylist() for name in ("image_key", "pixels_sha256"))
            target = self._write_shard(keys, digests, [images[row] for row in stood_for])
            again = {"shard": [target] * len(results)}
            again["row"] = np.searchsorted(stood_for, _rows(results)).tolist()
            moved.append(self._write_rows(replaced(results, again)))
        if not moved:
            return current
        return in_order(pa.concat_tables([current.filter(pa.array(~is_moved)), *moved]))

    def tidy(self, current: pa.Table, check: str) -> pa.Table:
        """Write all rows as one file, if they lie in many or most were checked by other code."""
        unchecked = len(current) - int(is_one_of(current["check"], [check]).sum())
        if unchecked <= _MAX_UNCHECKED and len(pc.unique(current["held_in"])) <= _MAX_ROW_FILES:
            return current
        return self._write_rows(current, check)

    def shed(self, current: pa.Table) -> pa.Table:
        """Write anew the files that also hold rows of no current file; return the results.

        What the archive no longer has must not remain here, be it a row.
        """
        counts = counted(current["held_in"])
        mixed = [
            name
            for name, number in counts.items()
            if pq.read_metadata(self.folder / name).num_rows > number
        ]
        if not mixed:
            return current
        own = is_one_of(current["held_in"], mixed)
        rows = kept(current, own)
        checks = pc.unique(rows["check"]).to_pylist()
        again = self._write_rows(rows, checks[0] if len(checks) == 1 else "")
        return in_order(pa.concat_tables([current.filter(pa.array(~own)), again]))

    def bury(self, erased: Tombstones, recorder: Recorder) -> None:
        """Put ``buried`` rows in place of those of somebody erased; ``compact`` then drops images.

        Rows that were looked through for the same tombstones are not looked through again.
        """
        seen = self.folder / "tombstones"
        if not erased.marks or (seen.exists() and seen.read_text() == erased.digest):
            return
        stored = self.load(recorder)
        found = erased.hits(stored) & ~is_one_of(stored["reason"], [Reason.ERASED])
        if found.any():
            holders = pc.unique(stored["held_in"].filter(pa.array(found))).to_pylist()
            rest = kept(stored, is_one_of(stored["held_in"], holders) & ~found)
            rows = [buried(one, erased) for one in as_results(stored.filter(pa.array(found)))]
            self._write_rows(pa.concat_tables([rest.select(STORED.names), as_table(rows)]))
            for name in holders:
                (self.folder / name).unlink()
        storage.write_bytes(seen, erased.digest.encode())

    def prune(self, current: pa.Table) -> None:
        """Delete the files that no current result needs."""
        for group in self.folder.glob("group-*.json"):  # left by a cluster that has read it
            group.unlink()
        needed = {
            name
            for column in ("held_in", "shard")
            for name in pc.unique(current[column]).to_pylist()
        }
        for path in [*self.folder.glob("rows-*.parquet"), *self.folder.glob("images-*.arrow")]:
            if path.name not in needed:
                self._mapped.pop(path.name, None)
                path.unlink()

    def export(self, path: Path, shard: str, keys: pa.Array, rows: Rows) -> None:
        """Make ``path`` hold the images in ``rows`` of ``shard``: a link if they are all of it.

        A link costs neither space nor time; nobody ever writes into a shard.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if len(rows) == len(self.images(shard)):
            try:
                path.hardlink_to(self.folder / shard)
            except OSError:  # another file system, or one without links
                shutil.copyfile(self.folder / shard, path)
            return
        write_shard(path, keys.to_pylist(), self.images(shard)[rows])

    def _write_shard(
        self,
        keys: Sequence[str],
        digests: Sequence[str],
        images: Sequence[NDArray[np.uint8] | None],
    ) -> str:
        name = shard_name(keys, digests)
        pixels = np.stack([image for image in images if image is not None])
        write_shard(self.folder / name, keys, pixels)
        return name

    def _write_rows(self, results: pa.Table, check: str = "") -> pa.Table:
        rows = results.select(RESULTS.names).replace_schema_metadata({_CHECK: check})
        name = f"rows-{digest(rows)}{'-checked' if check else ''}.parquet"
        storage.write_table(self.folder / name, rows, RESULTS)
        return _held(rows, name, check)

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
            rows = _read_rows(path)
        except SchemaError:
            continue
        rejects = as_results(rows.filter(pc.is_valid(rows["reason"])))
        dropped = {result.path for result in rejects if unwanted(result)}
        if not dropped:
            continue
        rest = rows.filter(pa.array(~is_one_of(rows["path"], dropped)))
        if len(rest):
            ResultStore(path.parent)._write_rows(rest, rest["check"][0].as_py())
        path.unlink()
        paths |= dropped
    return len(paths)


def open_files(work_dir: Path, source: Path, params: IngestParams, key: bytes) -> ResultStore:
    """Open the store for this source, code, key and settings; delete all but the latest two."""
    described = {
        "source": str(source.resolve()),
        "key": key_id(key),
        "keep_ids": params.deid.keep_ids,
        "seed": params.split.seed,
        "code": code.digest("lapvqa.ingest.worker"),
        "libraries": [version(name) for name in LIBRARIES],
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


def _read_rows(path: Path) -> pa.Table:
    rows = storage.read_table(path, RESULTS, made_by="ingest")
    check = (rows.schema.metadata or {}).get(_CHECK.encode(), b"")
    return _held(rows, path.name, check.decode())


def _held(rows: pa.Table, name: str, check: str) -> pa.Table:
    """Add the file that holds the rows, and the code by which their layout was checked."""
    for field, value in ((STORED.field("held_in"), name), (pa.field("check", pa.string()), check)):
        rows = rows.append_column(field, pa.repeat(value, len(rows)))
    return rows.replace_schema_metadata(None)


def _rows(results: pa.Table) -> Rows:
    rows: Rows = whole(results["row"]).fill_null(-1).to_numpy().astype(np.int64)
    return rows


def version(library: str) -> str:
    """Return the version of an installed library."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "absent"
