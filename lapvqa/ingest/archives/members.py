"""Members of zip files, and gzipped files, read where they lie and never unpacked to disk.

A member's path is the zip's with the member's name behind it: ``scan.zip/DIR/IM1``. Its stamp is
size and CRC-32, where a file has size and modification time. A gzipped file keeps its own path and
stamp, and is read as what is in it. Only stored and deflated members are read: both unpack in
pieces, so that no member can take more memory than it may.

The directories of the zips last used are kept, as long as the files are the same: a worker reads
its members one by one.
"""

from __future__ import annotations

import os
import posixpath
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lapvqa.dicom.reasons import Reason, as_reason
from lapvqa.errors import DicomError
from lapvqa.ingest.archives.names import place

Entry = tuple[str, int, int]
"""Path, bytes, and modification time in ns, of a member its CRC-32."""

_KEPT_ZIPS = 4
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
_GZIP = b"\x1f\x8b\x08"
_PREAMBLE = 128
_PIECE = 1 << 16
# Without waiting: a pipe that took the file's place would never open.
_OPENING = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class Zip:
    """An open zip: its members by their names, and what is wrong with the others."""

    file: zipfile.ZipFile
    members: Mapping[str, zipfile.ZipInfo]
    faults: Mapping[str, str]
    stamp: tuple[int, ...]


@dataclass(frozen=True)
class Expanded:
    """The members of some zips; ``faults`` says of a zip or a member why it cannot be read.

    A member with a fault stands in ``entries`` too.
    """

    entries: Sequence[Entry]
    faults: Mapping[str, str]


_opened: dict[str, Zip] = {}


def expand(folder: Path, entries: Sequence[Entry]) -> Expanded:
    """Return the members of the zips ``entries``, which are relative to ``folder``."""
    members: list[Entry] = []
    faults: dict[str, str] = {}
    for path, _, _ in entries:
        try:
            opened = open_zip(place(folder, path))
        except DicomError as error:
            faults[path] = error.message
            continue
        members += [
            (f"{path}/{name}", info.file_size, info.CRC) for name, info in opened.members.items()
        ]
        members += [(f"{path}/{name}", 0, 0) for name in opened.faults]
        faults |= {f"{path}/{name}": fault for name, fault in opened.faults.items()}
    return Expanded(members, faults)


def read_bytes(
    folder: Path, path: str, limit: int, *, stamp: tuple[int, int] | None = None
) -> bytes:
    """Return what a file or a member holds, of a gzipped one what is in it.

    Raises DicomError UNREADABLE, CHANGED (it does not have the ``stamp`` it was listed with),
    TOO_LARGE (more than ``limit`` bytes) or BAD_PACKING.
    """
    return read_at(place(folder, path), limit, stamp=stamp)


def read_at(file: Path, limit: int, *, stamp: tuple[int, int] | None = None) -> bytes:
    """Return the same of ``file``, which may lie within a zip."""
    if stamp is not None:
        _require_size(stamp[0], limit)
    try:
        with _as_unreadable():
            data, found = _read_file(file, limit)
    except _InsideAFile:
        opened, info = _member(file)
        data, found = read_member(opened, info, limit), (info.file_size, info.CRC)
    if stamp is not None and found != stamp:
        raise DicomError(Reason.CHANGED, "the file is no longer as it was listed")
    return _gunzipped(data, limit)


def read_head(file: Path, size: int) -> bytes:
    """Return the beginning of a file or member, of a gzipped one that of what is in it.

    At most ``size`` bytes; raises DicomError.
    """
    head = _head_as_it_lies(file, size)
    if not _is_gzip(head):
        return head
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, size)
    except zlib.error:
        return head


def _head_as_it_lies(file: Path, size: int) -> bytes:
    try:
        with _as_unreadable():
            handle = os.open(file, _OPENING)
            try:
                return os.read(handle, size)
            finally:
                os.close(handle)
    except _InsideAFile:
        opened, info = _member(file)
        return read_member(opened, info, size, whole=False)


def stamp_at(file: Path) -> tuple[int, int]:
    """Return size and modification time of a file, size and CRC-32 of a member; raises OSError."""
    try:
        status = file.stat()
    except NotADirectoryError:
        try:
            _, info = _member(file)
        except DicomError as error:
            raise FileNotFoundError(2, error.message) from None
        return info.file_size, info.CRC
    return status.st_size, status.st_mtime_ns


def open_zip(file: Path) -> Zip:
    """Open a zip and read its directory, or return it as it is known; raises DicomError."""
    with _as_unreadable():
        status = file.stat()
    stamp = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    known = _opened.pop(str(file), None)
    if known is None or known.stamp != stamp:
        if known is not None:
            known.file.close()
        with as_reason(Reason.BAD_PACKING, "a whole zip"), _as_unreadable():
            opened = zipfile.ZipFile(file)
        known = Zip(opened, *_sorted_out(opened.infolist()), stamp)
    _opened[str(file)] = known  # the last used stands last
    while len(_opened) > _KEPT_ZIPS:
        _opened.pop(next(iter(_opened))).file.close()
    return known


def read_member(
    opened: Zip,
    info: zipfile.ZipInfo,
    limit: int,
    *,
    reason: Reason = Reason.BAD_PACKING,
    whole: bool = True,
) -> bytes:
    """Return a member's bytes, checked, or its first ``limit`` if not ``whole``.

    Raises DicomError UNREADABLE, TOO_LARGE, or ``reason`` if it is damaged or encrypted.
    """
    if info.flag_bits & _ENCRYPTED:
        raise DicomError(reason, "expected a member of a zip that anyone can read: encrypted")
    if info.compress_type not in _METHODS:
        raise DicomError(
            reason, f"expected a member stored or deflated, found method {info.compress_type}"
        )
    if whole:
        _require_size(info.file_size, limit)
    with (
        as_reason(reason, "a whole member of a zip"),
        _as_unreadable(),
        opened.file.open(info) as handle,
    ):
        return handle.read() if whole else handle.read(limit)


def _sorted_out(
    infos: Sequence[zipfile.ZipInfo],
) -> tuple[dict[str, zipfile.ZipInfo], dict[str, str]]:
    """Return the members by name, and the faults of those that have none to be read by."""
    members: dict[str, zipfile.ZipInfo] = {}
    faults: dict[str, str] = {}
    for number, info in enumerate(infos):
        name = info.filename.replace("\\", "/")  # some programs of Windows write it so
        if name.endswith("/"):
            continue
        parts = name.split("/")
        if not parts[0] or ".." in parts or parts[0].endswith(":"):
            parts = [part for part in parts if part not in ("", "..")]
            faults["/".join([*parts, f"#{number}"])] = (
                "expected a name within the zip, found one that leads out of it"
            )
            continue
        name = posixpath.normpath(name)
        if name in members:  # the last one counts, as for whoever unpacks it
            faults[f"{name}#{number}"] = (
                "expected one member of this name in the zip, found several"
            )
        members[name] = info
    return members, faults


def _member(file: Path) -> tuple[Zip, zipfile.ZipInfo]:
    """Return the zip and the member that ``file`` names; raises DicomError."""
    for above in file.parents:
        if above.is_file():
            opened = open_zip(above)
            info = opened.members.get(file.relative_to(above).as_posix())
            if info is not None:
                return opened, info
            break
    raise DicomError(Reason.UNREADABLE, "expected a member of a zip, found none of this name")


def _read_file(file: Path, limit: int) -> tuple[bytes, tuple[int, int]]:
    handle = os.open(file, _OPENING)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise DicomError(Reason.UNREADABLE, "expected a regular file, found another kind")
        _require_size(status.st_size, limit)
        data = os.read(handle, status.st_size + 1)
        while more := os.read(handle, _PIECE):
            data += more
            _require_size(len(data), limit)
        return data, (len(data), os.fstat(handle).st_mtime_ns)
    finally:
        os.close(handle)


def _require_size(size: int, limit: int) -> None:
    if size > limit:
        raise DicomError(Reason.TOO_LARGE, f"{size} bytes, at most {limit} are read")


def _is_gzip(data: bytes) -> bool:
    return data.startswith(_GZIP) and data[_PREAMBLE : _PREAMBLE + 4] != b"DICM"


def _gunzipped(data: bytes, limit: int) -> bytes:
    """Return what is in ``data`` if that is gzipped (RFC 1952), else ``data``."""
    if not _is_gzip(data):
        return data
    pieces: list[bytes] = []
    size = 0
    with as_reason(Reason.BAD_PACKING, "a whole gzip"):
        while data:
            inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
            pieces.append(inflater.decompress(data, limit + 1 - size))
            size += len(pieces[-1])
            _require_size(size, limit)
            if not inflater.eof:
                raise DicomError(Reason.BAD_PACKING, "expected a whole gzip, found no end of it")
            data = inflater.unused_data.lstrip(b"\0")
    return b"".join(pieces)


class _InsideAFile(Exception):
    """The path leads through a file, so that it may name a member of it."""


@contextmanager
def _as_unreadable() -> Iterator[None]:
    try:
        yield
    except NotADirectoryError:
        raise _InsideAFile from None
    except OSError as error:
        raise DicomError(
            Reason.UNREADABLE,
            f"expected a readable file: {error.strerror or 'no cause given'}",
            exception=type(error).__name__,
        ) from None
