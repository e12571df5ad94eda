"""Reports inside a tar, packed or not: read once from end to end, and kept.

A tar has no directory and a packed one cannot be read from its middle. The one archive that
comes so (Open-i's 3,955 reports) is 21 MB unpacked.
"""

from __future__ import annotations

import gzip
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from lapvqa.errors import SourceError
from lapvqa.ingest.archives.loose import MAX_REPORT_BYTES, require_size

MAX_TOTAL_BYTES = 256 << 20


class TarredReports:
    """The members of ``folder / path`` whose names ``wanted`` finds; SourceError if damaged.

    A member is named ``path/member``.
    """

    def __init__(self, folder: Path, path: str, wanted: re.Pattern[str]) -> None:
        try:
            self._members = dict(_members(folder / path, path, wanted))
        except (OSError, tarfile.TarError, zlib.error, EOFError, ValueError) as error:
            raise SourceError(
                f"expected a tar file, could not read {path} ({type(error).__name__})",
                hint=f"fetch {Path(path).name} again from its publisher; an interrupted download "
                "lacks its end",
            ) from None

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
        require_size(len(self._members[name]))
        return self._members[name]


def _members(file: Path, path: str, wanted: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
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
