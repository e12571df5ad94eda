"""A trace is found in whatever packs it, and one that is not there is not."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sqlite3
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapvqa.erasure.search import kinds_in_file
from lapvqa.erasure.traces import KEY, TEXT, Traces
from lapvqa.images.shards import write_shard

GONE = "5f1d0c9be7a24386"
LINES = [f"{number:016x}" for number in range(999)]


def table(kind: pa.DataType) -> bytes:
    """A table of many keys, so that no statistic of a column names the one."""
    sink = io.BytesIO()
    keys = pa.table({"key": pa.array([*LINES, GONE, "ffff"], kind)})
    pq.write_table(keys, sink, compression="zstd", compression_level=9)
    return sink.getvalue()


def zipped(content: bytes, how: int) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", how) as archive:
        archive.writestr("first", b"nobody")
        archive.writestr("second", content)
    return sink.getvalue()


def tarred(content: bytes) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        member = tarfile.TarInfo("one")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return sink.getvalue()


def arrays() -> bytes:
    sink = io.BytesIO()
    np.savez_compressed(sink, keys=np.array([*LINES, GONE]))
    return sink.getvalue()


def database() -> bytes:
    with sqlite3.connect(":memory:") as made:
        made.execute("CREATE TABLE t (key TEXT)")
        made.execute("INSERT INTO t VALUES (?)", ("x" * 5000 + GONE,))
        return made.serialize()


TEXTS = "\n".join([*LINES, GONE]).encode()
PACKED: dict[str, Callable[[], bytes]] = {
    "table": lambda: table(pa.string()),
    "table of large strings, as pandas writes": lambda: table(pa.large_string()),
    "table of views": lambda: table(pa.string_view()),
    "dictionary": lambda: table(pa.dictionary(pa.int32(), pa.string())),
    "table in a bundle": lambda: zipped(table(pa.string()), zipfile.ZIP_STORED),
    "table in a zip": lambda: zipped(table(pa.string()), zipfile.ZIP_DEFLATED),
    "table in a tar": lambda: tarred(table(pa.string())),
    "table in a zip in a tar.gz": lambda: gzip.compress(
        tarred(zipped(table(pa.string()), zipfile.ZIP_STORED))
    ),
    "arrays": arrays,
    "database in a zip": lambda: zipped(database(), zipfile.ZIP_DEFLATED),
    "gzip": lambda: gzip.compress(TEXTS),
    "zlib": lambda: zlib.compress(TEXTS),
    "bzip2": lambda: bz2.compress(TEXTS),
    "xz": lambda: lzma.compress(TEXTS),
    "zstd": lambda: pa.compress(TEXTS, "zstd", asbytes=True),
    "text of a spreadsheet": lambda: TEXTS.decode().encode("utf-16"),
}


@pytest.mark.parametrize("packing", PACKED)
def test_what_packs_a_trace_hides_it_from_nobody(tmp_path: Path, packing: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(PACKED[packing]())
    assert kinds_in_file(path, [(KEY, GONE.encode()), (TEXT, b"somebody else")]) == {KEY}


def test_a_shard_in_a_zip_is_searched(tmp_path: Path) -> None:
    pixels = np.zeros((1, 384, 384), np.uint8)
    write_shard(tmp_path / "images.arrow", [GONE], pixels)
    path = tmp_path / "file.zip"
    path.write_bytes(zipped((tmp_path / "images.arrow").read_bytes(), zipfile.ZIP_DEFLATED))
    assert kinds_in_file(path, [(KEY, GONE.encode())]) == {KEY}


@pytest.mark.parametrize("packing", PACKED)
def test_damaged_packings_end_no_search(tmp_path: Path, packing: str) -> None:
    path, content = tmp_path / "file", bytearray(PACKED[packing]())
    for place in range(0, len(content), max(1, len(content) // 7)):
        path.write_bytes(bytes(content[:place]) + b"\xff\x00\xff" + bytes(content[place + 3 :]))
        kinds_in_file(path, [(KEY, GONE.encode())])


@given(st.text(min_size=1).filter(lambda text: text.strip() and not text.startswith("erased-")))
def test_a_text_is_found_as_json_and_pages_write_it(text: str) -> None:
    import html
    import json

    traces = Traces("p", {TEXT: {text}})
    needles = [needle for _, needle in traces.needles()]
    for written in (
        json.dumps({"report": text}), json.dumps({"report": text}, ensure_ascii=False),
        f"<p>{html.escape(text)}</p>", f"<p>{html.escape(text, quote=False)}</p>", text,
    ):  # fmt: skip
        content = written.encode("utf-8", "surrogatepass")
        assert any(needle in content for needle in needles), written
