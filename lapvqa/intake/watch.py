"""A folder into which others write: their DICOM files and reports go on into the archive.

A file is taken when nothing has touched it for a while. Who writes slowly should write under
another name and rename: names that begin with a dot or end in .part, .tmp and the like are left
alone, as is what links lead to in the project, its archive or its data sets. What stays in the
folder is counted by its reason.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from lapvqa.errors import FORBIDDEN, ConfigError, DicomError, SourceError, is_there
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
_TAKEN = "taken"
_LOCKED = "taken, but it may not be removed there; not taken again"
_UNREADABLE = "it cannot be read; tried again"
_OURS = "behind a link into the project, its archive or a data set"
_OTHER = "neither DICOM nor a report"


@dataclass
class Watcher:
    """One folder that is watched."""

    folder: Path
    source: str
    filing: Filing
    stated: ReportSources
    inputs: Collection[Path] = ()
    """Folders that the project reads beside its archive: nothing is taken out of them."""
    keep: bool = False
    settled: float = SETTLED_SECONDS
    _left: dict[Entry, str] = field(default_factory=dict)
    """Files that stay, by path, size and time, and why: looked at already."""
    _ours: list[Path] = field(init=False)

    def __post_init__(self) -> None:
        """Raise ConfigError or SourceError if the folder cannot be watched."""
        if not self.folder.is_dir():
            raise SourceError(f"expected a folder at {self.folder}, found none", hint="make it")
        folder, named = self.folder.resolve(), self._named()
        for what, ours in named:
            if folder.is_relative_to(ours) or ours.is_relative_to(folder):
                raise ConfigError(
                    f"expected a folder apart from {what}, found one in the other",
                    hint="watch a folder that is there for what others write: what is taken leaves "
                    "it; what lies in the archive is read by `lapvqa run` as it is",
                )
        self._ours = [ours for _, ours in named]

    @property
    def others(self) -> int:
        """How many files stay that were not taken."""
        return sum(why not in (_TAKEN, _LOCKED) for why in self._left.values())

    def _named(self) -> list[tuple[str, Path]]:
        """Return the folders that nothing is taken out of, and what each is."""
        archive = self.filing.inbox.archive
        linked = filter(Path.is_symlink, archive.iterdir())  # `lapvqa run --reports`
        folders = [
            *(("the archive", folder) for folder in (archive, *linked)),
            ("the project's folder", self.filing.project.root),
            *(("the folder of a data set", folder) for folder in self.inputs),
        ]
        return [(what, folder.resolve()) for what, folder in folders]

    def look(self) -> int:
        """Take what is whole; return how many files are still being written."""
        unsettled, found = 0, scan(self.folder)
        before = Counter(self._left.values())
        self._left = {entry: self._left[entry] for entry in found if entry in self._left}
        for entry in found:
            looked_at = self._left.get(entry, _UNREADABLE) != _UNREADABLE
            if looked_at or entry[0].lower().endswith(_UNFINISHED):
                continue
            if not self._is_settled(entry):
                unsettled += 1
            elif why := self._take(entry):
                self._left[entry] = why
            else:
                self._left.pop(entry, None)
        for why, number in sorted(Counter(self._left.values()).items()):
            if number > before[why] and why != _TAKEN:
                self.filing.say(f"{self.source}: left there, {why}: {counted(number, 'file')}")
        return unsettled

    def _is_settled(self, entry: Entry) -> bool:
        try:
            changed = place(self.folder, entry[0]).stat().st_ctime
        except OSError:
            return True  # gone meanwhile, or a broken link: nobody writes it
        return abs(time.time() - changed) >= self.settled

    def _take(self, entry: Entry) -> str:
        """Take one file; return why it stays there, nothing if it does not."""
        path = place(self.folder, entry[0])
        if any(path.parent.resolve().is_relative_to(ours) for ours in self._ours):
            return _OURS
        try:
            head = members.read_head(path, kinds.HEAD_BYTES)
            kind = kinds.by_name(*entry) or kinds.by_content(head)
            film = path.read_bytes() if kind == kinds.DICOM else b""
        except (OSError, DicomError):
            return _UNREADABLE if path.is_symlink() or is_there(path) else ""
        try:
            taken = (bool(film) and self._take_film(film)) or (
                kind in _MAY_HOLD_REPORTS and self._take_reports(entry[0])
            )
        except DicomError:
            taken = False
        if not taken:
            return _OTHER
        return _TAKEN if self.keep else _removed(path)

    def _take_film(self, data: bytes) -> bool:
        inbox = self.filing.inbox
        names = read_names(data)
        filed = inbox.filed(self.source, names)
        if not filed.exists() or filed.read_bytes() != data:
            inbox.deposit(self.source, names, data)
        return True

    def _take_reports(self, path: str) -> bool:
        taken = take_reports(self.filing, self.folder, path, source=self.source, stated=self.stated)
        if taken is None:
            return False
        what = "was here" if taken.known else f"{taken.new} new, {taken.amended} amended"
        self.filing.say(f"{self.source}: a file of reports: {what}")
        return True


def _removed(path: Path) -> str:
    """Remove what was taken; return why it stays, nothing if it is gone."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        if error.errno not in FORBIDDEN:
            raise
        return _LOCKED
    return ""


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
