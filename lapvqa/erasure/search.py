"""The search for traces in any file, whatever its packing: bytes, tables, shards, databases, zips.

Every file is read whole. Tables are compressed by columns and databases cut long values into pages,
so these are opened and their texts searched as well; zips, tars and compressed files are unpacked,
also one within another.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import mmap
import sqlite3
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lapvqa.erasure.traces import PIXELS
from lapvqa.schemas import STORED_SIZE

Needles = Sequence[tuple[str, bytes]]
"""Kind and bytes: ``Traces.needles``."""

Data = bytes | mmap.mmap

_SQLITE, _SHARD = b"SQLite format 3\0", b"ARROW1"
_DEEPEST = 5
"""Packings within packings: a table in a tar in a gzip."""

_STREAMS: Mapping[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"x": zlib.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ": lzma.decompress,
    b"\x28\xb5\x2f\xfd": lambda data: pa.CompressedInputStream(
        pa.BufferReader(data), "zstd"
    ).read(),
}
_PACKED = (_SQLITE, _SHARD, b"PAR1", b"PK\x03\x04", b"\x93NUMPY", *_STREAMS)
_UNREADABLE = (
    pa.ArrowException, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, OSError,
    EOFError, ValueError, RuntimeError, NotImplementedError,
)  # fmt: skip
"""What is raised on damaged files, and on zips with a password."""


def kinds_in_file(path: Path, needles: Needles) -> frozenset[str]:
    """Return the kinds of traces that a file holds; empty for none, or where it is gone."""
    try:
        with path.open("rb") as handle:
            size = handle.seek(0, 2)
            if not size:
                return frozenset()
            with closing(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)) as data:
                return frozenset(_kinds(data, needles, path))
    except FileNotFoundError:
        return frozenset()


def _kinds(data: Data, needles: Needles, path: Path | None = None, *, depth: int = 0) -> set[str]:
    """Search bytes, and what is packed in them; ``path``: of the file that they are, if of one."""
    if data[:6] == _SHARD:
        return _in_shard(data, needles)
    found = _in_bytes(data, needles)
    if depth < _DEEPEST:
        for content in _unpacked(data, path):
            found |= _kinds(content, needles, depth=depth + 1)
    return found


def _in_bytes(data: Data, needles: Needles) -> set[str]:
    found: set[str] = set()
    for kind, needle in needles:
        if kind not in found and data.find(needle) >= 0:
            found.add(kind)
    return found


def _unpacked(data: Data, path: Path | None) -> Iterator[bytes]:
    """Yield what packed bytes hold; what cannot be unpacked has been searched as it is."""
    head = data[:16]
    try:
        if head.startswith(b"PAR1"):
            yield from _texts(pq.ParquetFile(path or pa.BufferReader(data)).read())
        elif head == _SQLITE:
            yield from _rows(data, path)
        elif head.startswith(b"PK\x03\x04"):
            yield from _in_zip(path or io.BytesIO(data))
        elif data[257:262] == b"ustar":
            yield from _in_tar(data)
        elif head.startswith(b"\x93NUMPY"):
            yield _wide(data[:])
        elif head.startswith((b"\xff\xfe", b"\xfe\xff")):
            yield data[:].decode("utf-16", "ignore").encode()
        else:
            for magic, unpack in _STREAMS.items():
                if head.startswith(magic):
                    yield unpack(data[:])
    except _UNREADABLE:
        return


def _in_zip(file: Path | io.BytesIO) -> Iterator[bytes]:
    """Yield the members of a zip; of those that lie in it as they are, only what is packed."""
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            with suppress(*_UNREADABLE), archive.open(member) as stream:
                head = stream.read(16)
                if member.compress_type != zipfile.ZIP_STORED or head.startswith(_PACKED):
                    yield head + stream.read()


def _in_tar(data: Data) -> Iterator[bytes]:
    """Yield what is packed among the members of a tar, which lie in it as they are."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isfile() else None
            content = stream.read() if stream else b""
            if content.startswith(_PACKED):
                yield content


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
    elif any(is_text(array.type) for is_text in _TEXTS):
        data = array.cast(pa.large_binary()).buffers()[2]
        if data is not None:
            yield data.to_pybytes()


_TEXTS = (
    pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary,
    pa.types.is_large_binary, pa.types.is_binary_view,
)  # fmt: skip


def _rows(data: Data, path: Path | None) -> Iterator[bytes]:
    """Yield every row of a database, also of one that somebody else has open."""
    name = f"file:{path}?mode=ro" if path else "file::memory:"
    try:
        with closing(sqlite3.connect(name, uri=True)) as database:
            if path is None:
                database.deserialize(data[:])
            names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            for (table,) in names.fetchall():
                for row in database.execute(f'SELECT * FROM "{table}"'):
                    yield "\n".join(map(str, row)).encode("utf-8", "replace")
    except sqlite3.Error:  # searched as bytes
        return


def _in_shard(data: Data, needles: Needles) -> set[str]:
    """Search a shard of images by its keys and by the middle lines of its pixels."""
    try:
        table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
    except (pa.ArrowException, OSError):
        return _in_bytes(data, needles)
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
