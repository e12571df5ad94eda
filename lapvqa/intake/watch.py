"""A folder into which others write: their DICOM files and reports go on into the archive.

A file is taken when nothing has touched it for a while. Who writes slowly should write under
another name and rename: names that begin with a dot or end in .part, .tmp and the like are left
alone. What is neither DICOM nor a report stays where it is, and is counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from lapvqa.errors import ConfigError, DicomError, SourceError
from lapvqa.ingest.archives import kinds, members
from lapvqa.ingest.archives.names import place
from lapvqa.intake.filing import Filing
from lapvqa.intake.instance import read_names
from lapvqa.intake.reports import take_reports
from lapvqa.inventory import Entry, scan
from lapvqa.machine import ReportSources
from lapvqa.recorder import counted

SETTLED_SECONDS = 5.0
"""A file that nothing has touched for so long is whole."""
POLL_SECONDS = 2.0
_UNFINISHED = (".part", ".tmp", ".temp", ".filepart", ".crdownload", ".partial", ".lock", "~")
_MAY_HOLD_REPORTS = frozenset({"text", "table", "data", "web page", "document"})


@dataclass
class Watcher:
    """One folder that is watched."""

    folder: Path
    source: str
    filing: Filing
    stated: ReportSources
    keep: bool = False
    settled: float = SETTLED_SECONDS
    _done: set[Entry] = field(default_factory=set)
    """Files that stay, by path, size and time: looked at already."""
    others: int = 0
    """Of these, how many are neither DICOM nor reports."""

    def __post_init__(self) -> None:
        """Raise ConfigError or SourceError if the folder cannot be watched."""
        archive, folder = self.filing.inbox.archive.resolve(), self.folder.resolve()
        if not folder.is_dir():
            raise SourceError(f"expected a folder at {self.folder}, found none", hint="make it")
        if folder.is_relative_to(archive) or archive.is_relative_to(folder):
            raise ConfigError(
                "expected a folder apart from the archive, found one in the other",
                hint="what lies in the archive is read by `lapvqa run` as it is",
            )

    def look(self) -> int:
        """Take what is whole; return how many files are still being written."""
        unsettled = 0
        others = self.others
        for entry in scan(self.folder):
            if entry in self._done or entry[0].lower().endswith(_UNFINISHED):
                continue
            if not self._is_settled(entry):
                unsettled += 1
            elif not self._take(entry) or self.keep:
                self._done.add(entry)
        if self.others > others:
            left = counted(self.others, "file")
            self.filing.say(f"{self.source}: left there, neither DICOM nor a report: {left}")
        return unsettled

    def _is_settled(self, entry: Entry) -> bool:
        try:
            changed = place(self.folder, entry[0]).stat().st_ctime
        except OSError:
            return False  # gone meanwhile, or a broken link
        return abs(time.time() - changed) >= self.settled

    def _take(self, entry: Entry) -> bool:
        """Take one file; return whether it was one to take."""
        path = place(self.folder, entry[0])
        try:
            kind = kinds.by_name(*entry) or kinds.by_content(
                members.read_head(path, kinds.HEAD_BYTES)
            )
            if kind == kinds.DICOM and self._take_film(path):
                return True
            if kind in _MAY_HOLD_REPORTS and self._take_reports(entry[0]):
                return True
        except (OSError, DicomError):  # cannot be opened: it may be later
            pass
        self.others += 1
        return False

    def _take_film(self, path: Path) -> bool:
        data = path.read_bytes()
        inbox = self.filing.inbox
        names = read_names(data)
        filed = inbox.filed(self.source, names)
        if not filed.exists() or filed.read_bytes() != data:
            inbox.deposit(self.source, names, data)
        if not self.keep:
            path.unlink()
        return True

    def _take_reports(self, path: str) -> bool:
        taken = take_reports(
            self.filing, self.folder, path, source=self.source, stated=self.stated, keep=self.keep
        )
        if taken is None:
            return False
        what = "was here" if taken.known else f"{taken.new} new, {taken.amended} amended"
        self.filing.say(f"{self.source}: a file of reports: {what}")
        return True


def watch(watcher: Watcher, stopped: Callable[[], bool], *, once: bool) -> None:
    """Look and file until ``stopped``; ``once``: until all that is there is in the archive."""
    told = False
    while not stopped():
        unsettled = waiting = 1
        with nullcontext() if once else watcher.filing.going_on():
            unsettled = watcher.look()
            waiting = watcher.filing.settle()
        if once and not unsettled and not waiting:
            return
        if once and waiting and not told:
            told = True
            quiet = watcher.filing.inbox.settings.quiet_seconds
            watcher.filing.say(
                f"{watcher.source}: waits until nothing more of {counted(waiting, 'study')} has "
                f"come for {quiet:g} s (intake.quiet_seconds of local.yaml)"
            )
        time.sleep(min(POLL_SECONDS, watcher.settled) if once else POLL_SECONDS)
