"""Reports that may be files of their own or members of one packed file, which is not unpacked.

Where both hold a report the loose one counts: a file is what somebody can have corrected. Of
several copies of a loose report, or of the packed file, the first by path counts, and a packed
file in the source folder before one next to it (the inventory lists it as ``../name``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from lapvqa.ingest.archives import loose
from lapvqa.ingest.archives.tarred import TarredReports
from lapvqa.ingest.archives.zipped import ZippedReports

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
        self._by_groups: dict[tuple[str, ...], str] = {}
        self.paths: list[str] = []
        self._packed = _open_packed(folder, paths, wanted, packed)
        for path in paths:
            if match := wanted.search(path):
                self.paths.append(path)
                self._by_groups.setdefault(match.groups(), path)
        for path in sorted(self._packed.names) if self._packed else ():
            match = wanted.search(path)
            if match and self._by_groups.setdefault(match.groups(), path) == path:
                self.paths.append(path)
        self.paths.sort()

    @property
    def groups(self) -> list[tuple[str, ...]]:
        """What the pattern's groups found, for each report."""
        return list(self._by_groups)

    def path_of(self, *groups: str) -> str | None:
        """Return the path of the report that has these groups."""
        return self._by_groups.get(groups)

    def stamp(self, path: str) -> tuple[int, int]:
        """Return size and modification time of a file, size and CRC-32 of a member."""
        if self._packed is not None and path in self._packed:
            return self._packed.stamp(path)
        return loose.stamp(self._folder / path)

    def read(self, path: str) -> bytes:
        """Return a report's bytes; raises DicomError UNREADABLE or BAD_REPORT."""
        if self._packed is not None and path in self._packed:
            return self._packed.read(path)
        return loose.read(self._folder / path)


def _open_packed(
    folder: Path, paths: Sequence[str], wanted: re.Pattern[str], packed: Sequence[str]
) -> ZippedReports | TarredReports | None:
    found = [path for path in paths if path.endswith(tuple(packed))]
    found = [path for path in found if path.rpartition("/")[2] in packed]
    if not found:
        return None
    first = min(found, key=lambda path: (path.startswith("../"), path))
    reader = TarredReports if first.endswith(_TAR_SUFFIXES) else ZippedReports
    return reader(folder, first, wanted)
