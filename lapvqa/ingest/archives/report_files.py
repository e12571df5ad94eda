"""Reports of an archive: files of their own, or members of one packed file, read where they are.

Where both hold a report the loose one counts: a file is what somebody can have corrected. Of
several copies of a loose report, or of the packed file, the first by path counts, and a packed
file in the source folder before one next to it (the inventory lists it as ``../name``).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from lapvqa.dicom.reasons import Reason, as_reason
from lapvqa.errors import DicomError, SourceError
from lapvqa.ingest.archives import members
from lapvqa.ingest.archives.encodings import decode
from lapvqa.ingest.archives.hl7 import is_hl7, read_messages
from lapvqa.ingest.archives.markup import plain, require_text
from lapvqa.ingest.archives.names import place
from lapvqa.ingest.archives.protocol import MAX_REPORT_BYTES, ReportText
from lapvqa.ingest.archives.report_table import is_table_text
from lapvqa.ingest.columns import matching

MAX_TOTAL_BYTES = 256 << 20
"""Of the reports in one tar; those of Open-i are 21 MB."""
_TAG = re.compile(r"\W{0,3}[0-9a-fA-F]{4}, ?[0-9a-fA-F]{4}\W")
"""A line of a header as programs print it: (0008,0060) CS [DX]."""
_TAR_SUFFIXES = (".tgz", ".tar.gz", ".tar")


class ReportFiles:
    """The reports whose paths ``wanted`` finds, by the groups of that pattern.

    ``paths`` are the archive's files relative to ``folder``; ``packed`` are the names that a
    packed file may have. Raises SourceError if that is damaged.
    """

    def __init__(
        self, folder: Path, paths: Sequence[str], wanted: re.Pattern[str], packed: Sequence[str]
    ) -> None:
        self._folder = folder
        self._by_groups: dict[str, str] = {}
        self.paths: list[str] = []
        self.packed: list[str] = []
        """The packed file that is read, if there is one."""
        self._packed = _open_packed(folder, paths, wanted, packed)
        for path in matching(pa.array(paths, pa.string()), wanted).to_pylist():
            if match := wanted.search(path):
                self.paths.append(path)
                self._by_groups.setdefault("/".join(match.groups()), path)
        if self._packed is not None:
            self.packed.append(self._packed.path)
        for path in sorted(self._packed.names) if self._packed else ():
            match = wanted.search(path)
            if match and self._by_groups.setdefault("/".join(match.groups()), path) == path:
                self.paths.append(path)
        self.paths.sort()

    @cached_property
    def named(self) -> pa.Table:
        """Every report's groups, as ``name`` with / between them, and its path."""
        both = [*self._by_groups], [*self._by_groups.values()]
        return pa.table([pa.array(column, pa.string()) for column in both], ["name", "path"])

    def path_of(self, *groups: str) -> str | None:
        """Return the path of the report that has these groups."""
        return self._by_groups.get("/".join(groups))

    def stamp(self, path: str) -> tuple[int, int]:
        """Return size and modification time of a file, size and CRC-32 of a member."""
        if self._packed is not None and path in self._packed:
            return self._packed.stamp(path)
        return stamp_of(place(self._folder, path))

    def read(self, path: str) -> bytes:
        """Return a report's bytes; raises DicomError UNREADABLE or BAD_REPORT."""
        if self._packed is not None and path in self._packed:
            return self._packed.read(path)
        return read_loose(place(self._folder, path))


def _open_packed(
    folder: Path, paths: Sequence[str], wanted: re.Pattern[str], packed: Sequence[str]
) -> _ZippedReports | _TarredReports | None:
    candidates = [path for path in paths if path.endswith(tuple(packed))]
    candidates = [path for path in candidates if path.rpartition("/")[2] in packed]
    if not candidates:
        return None
    first = min(candidates, key=lambda path: (path.startswith("../"), path))
    reader = _TarredReports if first.endswith(_TAR_SUFFIXES) else _ZippedReports
    return reader(folder, first, wanted)


def decode_report(data: bytes, *, stated: str | None = None) -> ReportText:
    """Return a loose report's text: plain, RTF, HTML or one HL7 message, in any known encoding.

    ``stated`` is the only encoding that is tried, if somebody named one. Raises DicomError:
    BAD_REPORT, REPORT_ENCODING, REPORT_FORMAT.
    """
    if is_hl7(data[:256]):
        return _only_message(data)
    require_text(data)
    decoded = decode(data, stated=stated)
    with as_reason(Reason.BAD_REPORT, "a report as text, RTF or HTML"):
        text, form = plain(decoded.text)
    if "\n" not in text:
        text = text.replace("\r", "\n")
    if form == "text" and (kind := _other_kind(text)):
        raise DicomError(Reason.REPORT_FORMAT, f"expected a report, found {kind}")
    return ReportText(text, hashlib.sha256(data).hexdigest(), decoded.encoding, form)


def _other_kind(text: str) -> str:
    """Return what a text is that somebody's program wrote and is no report; empty otherwise."""
    lines = [line for line in text.splitlines() if line.strip()]
    if sum(_TAG.match(line) is not None for line in lines) * 2 > len(lines):
        return "a dump of a DICOM header"
    if is_table_text(text):
        return "a table; name it .csv"
    if text.lstrip().startswith(("{", "[")):
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return ""
        return "JSON"
    return ""


def _only_message(data: bytes) -> ReportText:
    found = read_messages(data)
    if len(found) != 1:
        raise DicomError(Reason.BAD_REPORT, f"expected one HL7 report, found {len(found)}")
    if found[0].text is None:
        refusal = found[0].refusal
        assert refusal is not None
        raise refusal.error()
    return found[0].text


def read_loose(path: Path, limit: int = MAX_REPORT_BYTES) -> bytes:
    """Return the bytes of a file of reports, or of a member of a zip as ``x.zip/member``.

    Raises DicomError UNREADABLE or BAD_REPORT.
    """
    try:
        return members.read_at(path, limit)
    except DicomError as error:
        if error.reason == Reason.UNREADABLE:
            raise
        raise DicomError(Reason.BAD_REPORT, error.message, exception=error.exception) from None


def _require_size(size: int) -> None:
    """Raise DicomError BAD_REPORT if so many bytes cannot be a report."""
    if size > MAX_REPORT_BYTES:
        raise DicomError(
            Reason.BAD_REPORT, f"expected at most {MAX_REPORT_BYTES} bytes, found more"
        )


def stamp_of(path: Path) -> tuple[int, int]:
    """Return size and modification time in ns, of a member size and CRC-32; raises OSError."""
    return members.stamp_at(path)


class _ZippedReports:
    """The members of ``folder / path`` whose names ``wanted`` finds; SourceError if damaged.

    A member is named ``path/member``. The directory is read once and the file stays open; each
    member's checksum is compared when it is read.
    """

    def __init__(self, folder: Path, path: str, wanted: re.Pattern[str]) -> None:
        self.path = path
        try:
            self._zip = members.open_zip(place(folder, path))
        except DicomError as error:
            raise _damaged("zip", path, error.exception or error.reason) from None
        self._members: Mapping[str, zipfile.ZipInfo] = {
            f"{path}/{name}": member
            for name, member in self._zip.members.items()
            if wanted.search(name)
        }

    @property
    def names(self) -> list[str]:
        """The members, in the order of the zip's directory."""
        return list(self._members)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def stamp(self, name: str) -> tuple[int, int]:
        """Return size and CRC-32."""
        member = self._members[name]
        return member.file_size, member.CRC

    def read(self, name: str) -> bytes:
        """Return a member's bytes; raises DicomError BAD_REPORT or UNREADABLE."""
        member = self._members[name]
        _require_size(member.file_size)
        return members.read_member(self._zip, member, MAX_REPORT_BYTES, reason=Reason.BAD_REPORT)


class _TarredReports:
    """The members of ``folder / path`` whose names ``wanted`` finds; SourceError if damaged.

    A member is named ``path/member``. A tar has no directory and a packed one cannot be read from
    its middle, so it is read once from end to end, and the members are kept in memory.
    """

    def __init__(self, folder: Path, path: str, wanted: re.Pattern[str]) -> None:
        self.path = path
        try:
            self._members = dict(_members_of(place(folder, path), path, wanted))
        except (OSError, tarfile.TarError, zlib.error, EOFError, ValueError) as error:
            raise _damaged("tar", path, type(error).__name__) from None

    @property
    def names(self) -> list[str]:
        """The members, in the order of the tar."""
        return list(self._members)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def stamp(self, name: str) -> tuple[int, int]:
        """Return size and CRC-32."""
        data = self._members[name]
        return len(data), zlib.crc32(data)

    def read(self, name: str) -> bytes:
        """Return a member's bytes; raises DicomError BAD_REPORT if it is too large."""
        _require_size(len(self._members[name]))
        return self._members[name]


def _members_of(file: Path, path: str, wanted: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    total = 0
    with _unpacked(file) as stream:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                if not member.isfile() or not wanted.search(member.name):
                    continue
                handle = archive.extractfile(member)
                data = handle.read(MAX_REPORT_BYTES + 1) if handle else b""
                total += len(data)
                if total > MAX_TOTAL_BYTES:
                    raise SourceError(
                        f"expected reports of {MAX_TOTAL_BYTES} bytes at most in {path}",
                        hint=f"fetch {file.name} again from its publisher, or unpack it",
                    )
                yield f"{path}/{member.name}", data
        while stream.read(1 << 20):  # the checksum stands at the end
            pass


def _unpacked(file: Path) -> BinaryIO:
    return file.open("rb") if file.suffix == ".tar" else cast(BinaryIO, gzip.open(file, "rb"))


def _damaged(kind: str, path: str, fault: str) -> SourceError:
    return SourceError(
        f"expected a {kind} file, could not read {path} ({fault})",
        hint=f"fetch {Path(path).name} again from its publisher; an interrupted download "
        "lacks its end",
    )
