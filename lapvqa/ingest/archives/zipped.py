"""Reports inside a zip, read where they are: its directory once, then member by member."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

from lapvqa.dicom.reasons import Reason, as_reason
from lapvqa.errors import DicomError, SourceError
from lapvqa.ingest.archives.loose import require_size


class ZippedReports:
    """The members of ``folder / path`` whose names ``wanted`` finds; SourceError if damaged.

    A member is named ``path/member``. The file stays open, and each member's checksum is
    compared when it is read.
    """

    def __init__(self, folder: Path, path: str, wanted: re.Pattern[str]) -> None:
        try:
            self._zip = zipfile.ZipFile(folder / path)
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise SourceError(
                f"expected a zip file, could not read {path} ({type(error).__name__})",
                hint=f"fetch {Path(path).name} again from its publisher; an interrupted download "
                "lacks its end",
            ) from None
        self._members: Mapping[str, zipfile.ZipInfo] = {
            f"{path}/{member.filename}": member
            for member in self._zip.infolist()
            if wanted.search(member.filename)
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
        require_size(member.file_size)
        # Damaged, encrypted, or packed in a way that Python does not know.
        with as_reason(Reason.BAD_REPORT, "a whole member of a zip"):
            try:
                return self._zip.read(member)
            except OSError as error:
                raise DicomError(
                    Reason.UNREADABLE,
                    f"expected a readable zip: {error.strerror}",
                    exception=type(error).__name__,
                ) from None
