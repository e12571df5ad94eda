"""The search for traces in any file, whatever its packing: bytes, tables, shards, databases, zips.

Every file is read whole. Tables are compressed by columns and databases cut long values into pages,
so these are opened and their texts searched as well; members of zips and gzips are unpacked.
"""

from __future__ import annotations

import gzip
import mmap
import sqlite3
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lapvqa.erasure.traces import PIXELS
from lapvqa.schemas import STORED_SIZE

Needles = Sequence[tuple[str, bytes]]
"""Kind and bytes: ``Traces.needles``."""

_SQLITE = b"SQLite format 3\0"


def kinds_in_file(path: Path, needles: Needles) -> frozenset[str]:
    """Return the kinds of traces that a file holds; empty for none, or where it is gone."""
    try:
        with path.open("rb") as handle:
            size = handle.seek(0, 2)
            if not size:
                return frozenset()
            with closing(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)) as data:
                return frozenset(_kinds(data, path, needles))
    except FileNotFoundError:
        return frozenset()


def _kinds(data: mmap.mmap, path: Path, needles: Needles) -> set[str]:
    head = data[:16]
    if head.startswith(b"ARROW1"):
        return _in_shard(path, needles)
    found = _in_bytes(data, needles)
    for content in _unpacked(head, path):
        found |= _in_bytes(content, needles)
    return found


def _in_bytes(data: bytes | mmap.mmap, needles: Needles) -> set[str]:
    found: set[str] = set()
    for kind, needle in needles:
        if kind not in found and data.find(needle) >= 0:
            found.add(kind)
    return found


def _unpacked(head: bytes, path: Path) -> Iterator[bytes]:
    """Yield what a packed file holds; what cannot be unpacked has been searched as it is."""
    try:
        if head.startswith(b"PAR1"):
            yield from _texts(pq.ParquetFile(path).read())
        elif head == _SQLITE:
            yield from _rows(path)
        elif head.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    if member.compress_type != zipfile.ZIP_STORED:
                        yield archive.read(member)
                    yield _wide(archive.read(member)) if member.filename.endswith(".npy") else b""
        elif head.startswith(b"\x1f\x8b"):
            yield gzip.decompress(path.read_bytes())
        elif head.startswith(b"\x93NUMPY"):
            yield _wide(path.read_bytes())
        elif head[:1] == b"x":
            yield zlib.decompress(path.read_bytes())
    except (pa.ArrowInvalid, zipfile.BadZipFile, zlib.error, OSError, EOFError):
        return


def _wide(data: bytes) -> bytes:
    """Return numpy's texts (four bytes a letter) as plain ones."""
    return data.replace(b"\0\0\0", b"") if b"'<U" in data[:200] else b""


def _texts(table: pa.Table) -> Iterator[bytes]:
    """Yield the bytes of every column of texts, in lists and structs too."""
    yield str(table.schema.metadata or "").encode()
    for column in table.columns:
        for chunk in column.chunks:
            yield from _texts_of(chunk)


def _texts_of(array: pa.Array) -> Iterator[bytes]:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_struct(array.type):
        for part in array.flatten():
            yield from _texts_of(part)
    elif pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        yield from _texts_of(array.flatten())
    elif pa.types.is_string(array.type) or pa.types.is_binary(array.type):
        data = array.buffers()[2]
        if data is not None:
            yield data.to_pybytes()


def _rows(path: Path) -> Iterator[bytes]:
    """Yield every row of a database, also of one that somebody else has open."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            for (table,) in names.fetchall():
                for row in database.execute(f'SELECT * FROM "{table}"'):
                    yield "\n".join(map(str, row)).encode("utf-8", "replace")
    except sqlite3.Error:  # searched as bytes
        return


def _in_shard(path: Path, needles: Needles) -> set[str]:
    """Search a shard of images by its keys and by the middle lines of its pixels."""
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
    except (pa.ArrowInvalid, OSError):
        return _in_bytes(path.read_bytes(), needles)
    found: set[str] = set()
    for content in _texts(table):
        found |= _in_bytes(content, needles)
    lines = {needle for kind, needle in needles if kind == PIXELS}
    if lines and "pixels" in table.column_names:
        for chunk in table["pixels"].chunks:
            flat = np.frombuffer(chunk.buffers()[1], np.uint8)
            images = flat.reshape(-1, STORED_SIZE, STORED_SIZE)
            middle = np.ascontiguousarray(images[:, STORED_SIZE // 2])
            if lines & set(map(bytes, middle)):
                found.add(PIXELS)
    return found
