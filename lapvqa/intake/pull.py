"""What a DICOMweb server has and the archive has not, fetched study by study.

What is missing is told by names, not by what was asked before: a pull that was cut off, or that
comes late, fetches the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from lapvqa.errors import DicomError
from lapvqa.ingest.tombstones import load_tombstones
from lapvqa.intake.dicomweb import Instance, Server, Study
from lapvqa.intake.filing import Filing
from lapvqa.intake.inbox import Inbox, Waiting
from lapvqa.intake.instance import Names, read_names


@dataclass
class Pulled:
    """What a pull came to."""

    studies: int = 0
    """Filed, or grown."""
    files: int = 0
    known: int = 0
    """Studies of which nothing was missing."""
    erased: int = 0
    """Studies of patients who were erased: not asked for."""
    failed: int = 0
    """Files that the server did not give."""
    left: bool = False
    """The hours were over, or somebody ended it."""


@dataclass(frozen=True)
class Puller:
    """One pull from one server."""

    server: Server
    filing: Filing
    may_go_on: Callable[[], bool]

    @property
    def _inbox(self) -> Inbox:
        return self.filing.inbox

    def pull(self, first: date, last: date) -> Pulled:
        """Fetch what is missing of the studies of some days, oldest first."""
        self.filing.recover()
        done = Pulled()
        erased = load_tombstones(self.filing.project, self._inbox.keyring)
        for day in _days(first, last):
            if not self.may_go_on():
                done.left = True
                return done
            for study in self.server.studies(day):
                key = self._inbox.keyring.study(study.uid)
                if not self.may_go_on():
                    done.left = True
                    return done
                if erased.mark("study", key) in erased.marks:
                    done.erased += 1
                elif study.num_instances and study.num_instances == self._num_filed(key):
                    done.known += 1
                else:
                    self._pull_study(study, key, done)
        self.filing.settle(only_overdue=True)
        return done

    def _num_filed(self, study: str) -> int:
        return sum(1 for _ in self._inbox.home(self.server.name, study).glob("*.dcm"))

    def _pull_study(self, study: Study, key: str, done: Pulled) -> None:
        missing = [one for one in self.server.instances(study) if not self._is_here(one)]
        waiting = self._inbox.studies / self.server.name / key
        failed = 0
        for instance in missing:
            if not self.may_go_on():
                done.left = True
                return
            failed += not self._fetch(instance)
        done.failed += failed
        done.files += len(missing) - failed
        if failed:
            return  # it waits in the inbox for the rest
        if not waiting.is_dir():
            done.known += 1
            return
        files = tuple(sorted(waiting.glob("*.dcm")))
        done.studies += bool(self.filing.file(Waiting(self.server.name, key, waiting, files, 0.0)))

    def _is_here(self, instance: Instance) -> bool:
        names = Names(instance.study, instance.uid, "", 0, "")
        waiting = self._inbox.place(self.server.name, names)
        return waiting.exists() or self._inbox.filed(self.server.name, names).exists()

    def _fetch(self, instance: Instance) -> bool:
        try:
            data = self.server.fetch(instance)
            names = read_names(data)
            if (names.study_uid, names.instance_uid) != (instance.study, instance.uid):
                self.filing.say(f"{self.server.name}: a file is not the one that was asked for")
                return False
        except DicomError as error:
            self.filing.say(f"{self.server.name}: a file was not given: {error.message}")
            return False
        self._inbox.deposit(self.server.name, names, data)
        return True


def _days(first: date, last: date) -> Iterator[date]:
    for number in range((last - first).days + 1):
        yield first + timedelta(days=number)


def is_within(hours: str | None, now: datetime) -> bool:
    """Tell whether a time lies in hours such as 22:00-06:00; always, if there are none."""
    if hours is None:
        return True
    begin, end = hours.split("-")
    time = f"{now:%H:%M}"
    return begin <= time < end if begin < end else time >= begin or time < end
