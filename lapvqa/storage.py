"""Write files so that they are either whole or absent, and read them back checked.

Every writer writes a temporary name in the same folder, fsyncs, renames.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lapvqa.errors import (
    FULL,
    BusyError,
    ConfigError,
    MissingArtifactError,
    SchemaError,
    StorageFullError,
)

if TYPE_CHECKING:
    import pyarrow as pa


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes ``path`` (fsynced) if the block succeeds.

    Raises StorageFullError when the disk, a quota or a file-size limit is reached;
    the temporary file is removed on any failure, ``path`` keeps its old content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        # A new inode each time: never write through a hard link into DVC's cache.
        temporary.replace(path)
        flush_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, IsADirectoryError):
            raise ConfigError(
                f"expected a file to write at {path}, found a folder", hint="name a file in it"
            ) from error
        if error.errno in FULL:
            raise StorageFullError(
                f"no space left while writing {path.name} ({error.strerror})",
                hint="free disk space or raise the quota, then run again; nothing was lost",
            ) from error
        raise
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def temporary_path(path: Path) -> Path:
    """Return a path beside ``path`` that is this thread's: of two writers the later stays."""
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}.tmp")


def flush_folder(folder: Path) -> None:
    """Flush a folder's list of names to disk: a file that was renamed into it stays there."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as sorted, indented JSON; NaN is an error, null is the unknown."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_bytes(path, text.encode() + b"\n")


def read_json(path: Path, *, made_by: str) -> Any:
    """Read JSON; MissingArtifactError names the stage that makes the file."""
    require(path, made_by=made_by)
    return json.loads(path.read_bytes())


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects of a file of lines, none if it is not there.

    Torn lines, as a writer leaves that was killed, are passed over.
    """
    if not path.exists():
        return []
    found = []
    for line in path.read_bytes().splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def require(path: Path, *, made_by: str) -> Path:
    """Return ``path``; raise MissingArtifactError if it is not there."""
    if not path.exists():
        raise MissingArtifactError(
            f"expected {path.name} in {path.parent.name}/, found nothing",
            hint=f"run `lapvqa run --stage {made_by}` first",
        )
    return path


def write_table(path: Path, table: pa.Table, schema: pa.Schema) -> None:
    """Write a Parquet file (zstd) whose columns are exactly ``schema``."""
    import pyarrow.parquet as pq

    _check_schema(path, table.schema, schema)
    metadata = {**(schema.metadata or {}), **(table.schema.metadata or {})}
    ordered = table.select(schema.names).cast(schema).replace_schema_metadata(metadata or None)
    with atomic_path(path) as temporary:
        pq.write_table(ordered, temporary, compression="zstd")


def read_table(path: Path, schema: pa.Schema, *, made_by: str) -> pa.Table:
    """Read a Parquet file or a folder of them; SchemaError if columns or types differ."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    require(path, made_by=made_by)
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise MissingArtifactError(
            f"expected Parquet files in {path.name}/, found none",
            hint=f"run `lapvqa run --stage {made_by}` first",
        )
    try:
        tables = [pq.ParquetFile(file).read() for file in files]
    except pa.ArrowInvalid as error:
        raise SchemaError(
            f"expected a Parquet file at {path.name}, found something unreadable",
            hint=f"delete it and run `lapvqa run --stage {made_by}`",
        ) from error
    for file, table in zip(files, tables, strict=True):
        _check_schema(file, table.schema, schema)
    metadata = tables[0].schema.metadata
    return pa.concat_tables([table.cast(schema) for table in tables]).replace_schema_metadata(
        metadata
    )


def read_columns(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read some columns of a Parquet file, or all, whatever they are.

    Not by ``pyarrow.parquet.read_table``, which imports pandas: half a second.
    """
    import pyarrow.parquet as pq

    return pq.ParquetFile(path).read(columns)


def _check_schema(path: Path, schema: pa.Schema, expected: pa.Schema) -> None:
    if set(schema.names) != set(expected.names):
        missing = sorted(set(expected.names) - set(schema.names))
        extra = sorted(set(schema.names) - set(expected.names))
        raise SchemaError(
            f"{path.name}: missing columns {missing}, unexpected columns {extra}",
            hint="the file was made by another version; run the stage that makes it again",
        )
    for field in expected:
        if schema.field(field.name).type != field.type:
            raise SchemaError(
                f"{path.name}: column {field.name} is {schema.field(field.name).type}, "
                f"expected {field.type}",
                hint="the file was made by another version; run the stage that makes it again",
            )


def sha256_file(path: Path) -> str:
    """Return the hex sha256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until no other process holds ``path``, a file for nothing else, then hold it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def lock(path: Path, *, what: str) -> Iterator[None]:
    """Hold an exclusive lock on ``path``; BusyError says who holds it.

    The kernel drops the lock with the process, so a killed holder never blocks the next.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            holder = handle.read().strip() or "another process"
            raise BusyError(
                f"{what} is already running: {holder}",
                hint="wait for it, watch it with `lapvqa status`, or stop that process",
            ) from None
        handle.truncate(0)
        handle.write(
            f"process {os.getpid()} on {os.uname().nodename}, "
            f"since {time.strftime('%Y-%m-%d %H:%M:%S')}\n"
        )
        handle.flush()
        yield
        handle.truncate(0)


def holder(path: Path) -> str:
    """Return who holds the lock at ``path`` ("process 12 on host, since ..."); "" if nobody does.

    Asks the kernel's list of locks: trying the lock, however shortly, could make a run that
    starts at this moment believe that another one is at work.
    """
    try:
        inode = path.stat().st_ino
        locks = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return ""
    if not any(line.split()[5].endswith(f":{inode}") for line in locks.splitlines()):
        return ""
    return path.read_text(encoding="utf-8", errors="replace").strip() or "another process"
