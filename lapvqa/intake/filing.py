"""A complete study leaves the inbox: by a rename into the archive, as a tree that ingest reads.

    <archive>/<source>/<study>/<instance>.dcm

A study that is there already, from whatever source, gets what is new; a file that says something
else under the same SOP Instance UID takes the place of the one before, as a PACS that has corrected
a header sends it. The same bytes again change nothing and are no event.

Killed anywhere, the next start ends it: the event is written down before the first rename.
"""

from __future__ import annotations

import filecmp
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lapvqa import arrivals, storage
from lapvqa.arrivals import AMENDED, STUDY, Line
from lapvqa.errors import DicomError, StorageFullError
from lapvqa.intake.inbox import Inbox, Waiting
from lapvqa.intake.instance import Names, read_names
from lapvqa.intake.register import Register
from lapvqa.lineage import ledger
from lapvqa.lineage.row_numbers import STUDY as STUDY_ROWS
from lapvqa.lineage.row_numbers import RowNumbers, packed
from lapvqa.project import Project
from lapvqa.recorder import counted

_HEADER = 1 << 20
Say = Callable[[str], None]


@dataclass(frozen=True)
class _Move:
    """What becomes of one file: where it goes, and the sha256 of what it takes the place of."""

    source: Path
    target: Path | None
    """None: it is there already."""
    replaces: str = ""


@dataclass
class Filing:
    """The way out of one inbox."""

    project: Project
    inbox: Inbox
    say: Say
    register: Register = field(default_factory=Register)
    _full: bool = False
    _told: dict[str, int] = field(default_factory=dict)
    """Files of the studies that were said to wait for more."""

    def settle(self, *, only_overdue: bool = False) -> int:
        """File every study that is complete; return how many wait.

        Complete: nothing has come for ``quiet_seconds``, and as many files are there as the study
        says that it has; those of which some never come are filed after ``patience_seconds``, and
        with ``only_overdue`` none but those.
        """
        waiting = 0
        for study in self.inbox.waiting():
            overdue = study.quiet >= self.inbox.settings.patience_seconds
            if not (overdue or (not only_overdue and self._is_complete(study))):
                waiting += 1
                continue
            self.file(study)
        return waiting

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Say of a full disk, once, that it is full; what waits is tried again."""
        try:
            yield
            self._full = False
        except StorageFullError as error:
            if not self._full:
                self.say(f"{error.message}; what waits is tried again. {error.hint}")
            self._full = True

    def _is_complete(self, study: Waiting) -> bool:
        if study.quiet < self.inbox.settings.quiet_seconds:
            return False
        found = len(set(study.files) | self._filed(study))
        if self._told.get(study.study) == found:
            return False
        expected = max(names.of_study for names in map(_names, study.files))
        if found < expected:
            self._told[study.study] = found
            self.say(f"{study.source}: study {study.study} has {found} of {expected} files, waits")
        return found >= expected

    def _filed(self, study: Waiting) -> set[Path]:
        """Return the files that the archive has of the study, as they were called here."""
        folder = self.inbox.home(study.source, study.study)
        return {study.folder / path.name for path in folder.glob("*.dcm")}

    def file(self, study: Waiting) -> Line | None:
        """Move a study into the archive; return the event, None if nothing was new."""
        with self.alone(), self.inbox.holding(study.study):
            files = sorted(study.folder.glob("*.dcm"))
            target = self.inbox.home(study.source, study.study)
            is_new = not target.exists()
            moves = [self._plan(path, target / path.name) for path in files]
            changes = [move for move in moves if move.target is not None]
            numbers = {names.accession for names in map(_names, files)} - {""}
            event: Line = {
                "at": arrivals.now(), "event": STUDY if is_new else AMENDED,
                "source": study.source, "study": study.study, "files": len(changes),
                "bytes": sum(move.source.stat().st_size for move in changes),
                "id": secrets.token_hex(8),
                "accession": sorted(map(self.inbox.keyring.accession, numbers)),
            }  # fmt: skip
            replaced = {
                move.replaces: storage.sha256_file(move.source) for move in changes if move.replaces
            }
            journal = {"event": event if changes else None, "replaced": replaced}
            storage.write_json(self.inbox.journal, {**journal, "folder": str(study.folder)})
            self._move(study.folder, target, moves, is_new=is_new)
            self._close(journal)
        kept = len(moves) - len(changes)
        self.say(
            f"{study.source}: study {study.study} "
            + ("filed" if is_new else "has grown" if changes else "came again")
            + f", {counted(len(changes), 'file')}, {event['bytes'] / 1e6:.1f} MB"
            + (f", {len(replaced)} in place of earlier ones" if replaced else "")
            + (f", {kept} were here already" if kept else "")
        )
        return event if changes else None

    def recover(self) -> None:
        """End what a killed process had begun to file."""
        if not self.inbox.journal.exists():
            return
        with self.alone():
            journal = storage.read_json(self.inbox.journal, made_by="intake")
            folder = Path(journal["folder"])
            target = self.inbox.home(folder.parent.name, folder.name)
            if folder.exists():
                moves = [self._plan(p, target / p.name) for p in sorted(folder.glob("*.dcm"))]
                self._move(folder, target, moves, is_new=not target.exists())
            self._close(journal)
            self.say("a study that was on its way when the last process ended is filed")

    def _plan(self, path: Path, target: Path) -> _Move:
        if not target.exists():
            return _Move(path, target)
        if filecmp.cmp(path, target, shallow=False):
            return _Move(path, None)
        with suppress(DicomError):  # of one there that can no longer be read: it is replaced
            if _names(path).may_be_lossy and not _names(target).may_be_lossy:
                return _Move(path, None)  # a viewer's copy, not a correction
        return _Move(path, target, storage.sha256_file(target))

    def _move(self, folder: Path, target: Path, moves: list[_Move], *, is_new: bool) -> None:
        if not target.parent.exists():
            target.parent.mkdir()
            storage.flush_folder(self.inbox.archive)
        if is_new:
            folder.rename(target)
        for move in () if is_new else moves:
            if move.target is None:
                move.source.unlink()
            else:
                move.source.replace(move.target)
        if not is_new:
            folder.rmdir()
        for changed in (target, target.parent) if is_new else (target,):
            storage.flush_folder(changed)

    def _close(self, journal: dict[str, Any]) -> None:
        """Tell what was done, once, and forget the journal."""
        event = journal["event"]
        if event is not None:
            arrivals.append(self.project.arrivals, [event])
            self.register.add(event)
            pairs = [(old, new) for old, new in journal["replaced"].items()]
            self.record(event, "film", pairs)
        self.inbox.journal.unlink()

    def record(self, event: Line, what: str, replaced: list[tuple[str, str]]) -> None:
        """Write into the ledger what took the place of what, pairs of digests; once per event."""
        if not replaced:
            return
        study = event["study"]
        rows = packed(RowNumbers(self.project, STUDY_ROWS).number([study])) if study else None
        said = {
            "id": event["id"], "what": what, "source": event["source"], "study": rows,
            "replaces": [{"now": new, "before": old} for old, new in replaced],
        }  # fmt: skip

        def make(before: list[ledger.Entry]) -> list[ledger.Draft]:
            known = any(
                entry.kind == ledger.ARRIVAL and (entry.payload or {}).get("id") == event["id"]
                for entry in reversed(before)
            )
            return [] if known else [ledger.Draft(ledger.ARRIVAL, said)]

        ledger.extend(self.project, make)

    def alone(self) -> AbstractContextManager[None]:
        """Wait until no other command files into this archive."""
        return storage.alone(self.inbox.root / "filing.lock")


def _names(path: Path) -> Names:
    """Return the names in a file of the inbox or the archive."""
    with path.open("rb") as file:
        head = file.read(_HEADER)
        try:
            return read_names(head)
        except DicomError:  # a header longer than that
            return read_names(head + file.read())
