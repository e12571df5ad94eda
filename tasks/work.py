"""The work of a run: which stages, in what order, each a child `dvc repro -s STAGE`.

It begins at once, in threads of its own, and asks no server anything. Prefect's tasks follow it
(``prefect_tasks``): they wait for what becomes of each stage, and keep the records.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TextIO, TypeAlias

from lapvqa import errors
from lapvqa.errors import EXIT_BAD_DATA, EXIT_BUSY, EXIT_FAULT, EXIT_INTERRUPTED, EXIT_USER
from lapvqa.lineage import runs
from lapvqa.project import Project
from lapvqa.recorder import PROGRESS_PREFIX
from lapvqa.uptodate import staleness
from lapvqa.uptodate.stagefile import LockedStage
from tasks import child_process, ledger_lines, results, settling
from tasks.display import StageOutcome
from tasks.dvc_repository import (
    StageNode,
    drop_spoilt,
    keep_dvc_lock,
    put_in_order,
    read_graph,
    stale_stages,
)
from tasks.session import Session
from tasks.side_by_side import at_once, run_all

Said: TypeAlias = dict[str, Any] | tuple[int, str]
"""What a stage said: an entry of its progress, or a line with its level."""

_TAIL = 50
_LOGGED_LINES = 2000
_KNOWN_EXITS = {EXIT_USER, EXIT_BAD_DATA, EXIT_BUSY, EXIT_INTERRUPTED}
_SIGNALLED = 128
"""What a shell adds to the number of a signal that ended a process."""
_EXITED = re.compile(r"exited with (-?\d+)")


class StageFailedError(errors.LapvqaError):
    """A stage ended without an error of its own; ``exit_code`` is the stage's, or EXIT_FAULT.

    Of a stage that a signal ended: 128 and its number, as in a shell.
    """

    def __init__(self, message: str, *, hint: str, exit_code: int = EXIT_FAULT) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Ended:
    """How a stage ended that did not fail."""

    outcome: StageOutcome
    locks: dict[str, LockedStage]
    """dvc.lock as it was then, read while nobody wrote it."""
    at: float


class StageAtWork:
    """One stage of the work: whether it begins, what it says, how it ends."""

    def __init__(self, node: StageNode, reason: str) -> None:
        self.node, self.reason = node, reason
        self.token = uuid.uuid4().hex
        """By which the stage's run file is known to be of this run (``ledger_lines.keep_ids``)."""
        self.began = 0.0
        self.is_followed = False
        self.begins: Future[bool] = Future()
        self.ended: Future[Ended] = Future()
        self._said: SimpleQueue[Said | None] = SimpleQueue()

    def say(self, what: Said) -> None:
        """Keep what the stage said for whoever follows."""
        self._said.put(what)

    def said(self) -> Iterator[Said]:
        """Yield what the stage says, until it has ended."""
        while (what := self._said.get()) is not None:
            yield what

    def end(self, ended: Ended | None, error: BaseException | None) -> None:
        """Let whoever follows know."""
        _settle(self.begins, False)
        _settle(self.ended, ended, error or _NotBegunError())
        self._said.put(None)


class _NotBegunError(Exception):
    """The stage never began: one before it failed, or the run was interrupted."""


class Work:
    """The stages of one run at work; with ``stage`` only this one and what is above it.

    The futures are for those who follow: they get the work's own error if it fails before.
    """

    def __init__(self, session: Session, stage: str | None) -> None:
        self._session, self._stage = session, stage
        self.graph: Future[list[str]] = Future()
        """The stages in the order in which they run."""
        self.looks: Future[list[str]] = Future()
        """Those that look for new files before it is known what is stale."""
        self.stale: Future[list[str]] = Future()
        """Those that may have to run after them."""
        self.stages: dict[str, StageAtWork] = {}
        self._first: list[str] = []
        self._locks: dict[str, LockedStage] = {}
        """dvc.lock before anything ran."""
        self.under_way = threading.Event()
        """Set once the first stage is about to start, or there is none."""
        self.flow: Future[Context] = Future()
        """The context of the flow that follows; who works on a cluster by Prefect waits for it."""
        self._thread = threading.Thread(target=self._run, name="work")
        self._error: BaseException | None = None

    def start(self) -> None:
        """Begin; returns at once."""
        settling.owe(self._session.project)
        self._thread.start()

    def stop(self) -> None:
        """Interrupt what is at work, and wait until it has put its work away."""
        self._session.stop.set()
        _settle(self.flow, None, KeyboardInterrupt())
        with suppress(RuntimeError):  # interrupted while it began: it sees ``stop`` first
            self._thread.join()
        self._tell_what_nobody_followed()

    def finish(self) -> None:
        """Wait until all is done; raise what the work failed with."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._do()
        except BaseException as error:  # noqa: BLE001 - ``finish`` raises it in the right thread
            self._error = error
        finally:
            self.under_way.set()
            failed = self._error or _NotBegunError()
            for future in (self.graph, self.looks, self.stale):
                _settle(future, None, failed)
            for one in self.stages.values():
                one.end(None, None)

    def _do(self) -> None:
        session = self._session
        project = session.project
        session.graph = {node.name: node for node in read_graph(project)}
        session.records.main_params = results.main_params(session.graph.values())
        session.display.expect(list(session.graph), ledger_lines.last_times(project))
        wanted = [name for name in session.graph if self._stage is None or self._concerns(name)]
        session.wanted = wanted
        self.graph.set_result(list(session.graph))
        self._locks = keep_dvc_lock(project)  # once: later a stage beside may hold the lock
        # What an always-changed stage without inputs finds (the inventory) decides the rest.
        first = self._first = [name for name in wanted if session.graph[name].looks_around]
        states = staleness.check(project)
        # A listing there spares a stage's whole process here.
        looks = [name for name in first if name in {one.name for one in states if one.stale}]
        if not project.inventory("source").exists():
            looks = first  # nothing to compare with
        self._expect(dict.fromkeys(looks, "looks for new files"))
        self.looks.set_result(looks)
        for name in looks:
            self._one(name)
        if looks:
            states = staleness.check(project, done=first)
        found = stale_stages(project, states, list(session.graph.values()), done=first)
        stale = {name: why for name, why in found.items() if name in wanted}
        if self._stage is not None and self._stage not in (*stale, *looks):
            stale[self._stage] = "asked for"
        self._expect(stale)
        self.stale.set_result(list(stale))
        try:
            run_all(
                list(stale), {name: upstream(session, name) for name in stale}, self._one,
                limit=at_once(session.machine), stop=session.stop,
            )  # fmt: skip
        finally:
            put_in_order(project, session.graph)
            keep_dvc_lock(project)

    def _tell_what_nobody_followed(self) -> None:
        """Tell the ledger of a stage that was interrupted before Prefect's flow had begun."""
        session = self._session
        for name, one in self.stages.items():
            error = one.ended.exception()
            if one.is_followed or not one.began or error is None:
                continue
            ledger_lines.tell_failure(
                session.project, name, began=one.began,
                outcome=runs.FAILED if isinstance(error, Exception) else runs.INTERRUPTED,
                params=one.node.params, commit=session.commit, ids=ledger_lines.Ids(),
                seconds=time.time() - one.began,
            )  # fmt: skip

    def _concerns(self, name: str) -> bool:
        assert self._stage is not None
        return name == self._stage or name in upstream(self._session, self._stage)

    def _expect(self, stages: dict[str, str]) -> None:
        graph = self._session.graph
        self.stages |= {name: StageAtWork(graph[name], why) for name, why in stages.items()}

    def _one(self, name: str) -> None:
        """Run one stage as DVC would, and tell those who follow.

        Raises what the stage raised (the same LapvqaError class, message and exit code), else
        StageFailedError with its last lines.
        """
        session, one = self._session, self.stages[name]
        project = session.project
        if session.stop.is_set():
            raise KeyboardInterrupt
        require_inputs(project.root, one.node, session.graph)
        before = _Before.of(project, one.node, self._locks.get(name))
        one.began = time.time()
        if not one.node.always_changed:  # it may find nothing new, which nobody records
            params, tags = one.node.params, session.tags(name)
            session.records.note(name, params, tags, started=one.began)
        one.begins.set_result(True)
        session.display.begin(name, one.reason)
        ended, failed = None, None
        self.under_way.set()
        try:
            if self._is_up_to_date(one):
                ended = Ended(StageOutcome(name, "up to date", 0.0), {}, time.time())
            else:
                self._prepare(name)
                if before.lock is not None:
                    drop_spoilt(project, before.lock, session.display.say)
                output = Output(session, one)
                code = _repro(project, one, output, session.stop)
                if code:
                    raise failure(project, name, code, output.tail)
                locks, at = keep_dvc_lock(project), time.time()
                seconds = at - one.began
                ended = Ended(_outcome(project, one.node, before, locks[name], seconds), locks, at)
            outcome = ended.outcome
        except BaseException as error:
            failed = error
            interrupted = not isinstance(error, Exception)
            how, why = ("interrupted", "") if interrupted else ("failed", first_line(error))
            outcome = StageOutcome(name, how, time.time() - one.began, why)
            raise
        finally:
            session.outcomes.append(outcome)
            session.display.end(outcome)
            one.end(ended, failed)

    def _is_up_to_date(self, one: StageAtWork) -> bool:
        """Tell whether what is above a stage has run and left everything as it was."""
        if not any(name in self.stages for name in one.node.upstream):
            return False
        states = staleness.check(self._session.project, done=self._first)
        return any(state.name == one.node.name and not state.stale for state in states)

    def _prepare(self, name: str) -> None:
        """Do what a stage may have done for it beforehand on other machines."""
        if name == "ingest" and self._session.machine.execution.engine == "dask":
            from tasks.ingest_on_dask import read_ahead

            self.flow.result().copy().run(read_ahead)


@contextmanager
def working(session: Session, stage: str | None) -> Iterator[Work]:
    """Begin the session's work, unless it has begun; it has ended when this returns."""
    if session.work is not None:
        yield session.work
        return
    work = session.work = Work(session, stage)
    try:
        work.start()
        yield work
    except BaseException:
        work.stop()
        raise
    work.finish()


def upstream(session: Session, stage: str) -> set[str]:
    """Return all stages that ``stage`` stands on, directly or not."""
    direct = session.graph[stage].upstream
    return set(direct).union(*(upstream(session, name) for name in direct))


def _settle(future: Future[Any], value: Any, error: BaseException | None = None) -> None:
    """Give a future that has none an outcome."""
    if future.done():
        return
    if error is not None and value is None:
        future.set_exception(error)
    else:
        future.set_result(value)


class Output:
    """What a stage prints: progress to the person, the rest to a file; all of it to who follows."""

    def __init__(self, session: Session, one: StageAtWork) -> None:
        self._session, self._one = session, one
        self.tail: deque[str] = deque(maxlen=_TAIL)
        self._logged = 0

    def to(self, log: TextIO) -> Callable[[str], None]:
        """Return the function that takes each line; all but progress goes into ``log``."""
        stage = self._one.node.name

        def take(line: str) -> None:
            if line.startswith(PROGRESS_PREFIX):
                entry = json.loads(line.removeprefix(PROGRESS_PREFIX))
                self._session.display.progress(entry)
                self._one.say(entry)
                return
            log.write(line + "\n")
            log.flush()
            self.tail.append(line)
            self._logged += 1
            if self._logged <= _LOGGED_LINES:
                self._one.say((logging.INFO, line))
            elif self._logged == _LOGGED_LINES + 1:
                more = f"more lines than Prefect can take; all are in {log.name}"
                self._one.say((logging.WARNING, more))
            if line.startswith(f"{stage}: ") and not line.startswith(f"{stage}: {{"):
                self._session.display.say(line)

        return take


def require_inputs(root: Path, node: StageNode, graph: dict[str, StageNode]) -> None:
    """Raise MissingArtifactError, which names the stage to run, where DVC would just stop."""
    makers = {out: name for name in node.upstream for out in graph[name].outs}
    for path in node.deps:
        if path in makers and not (root / path).exists():
            raise errors.MissingArtifactError(
                f"{node.name}: expected {path}, found nothing",
                hint=f"run `lapvqa run`, or `lapvqa run --stage {makers[path]}` first",
            )


def _repro(project: Project, one: StageAtWork, output: Output, stop: threading.Event) -> int:
    """Run the stage's `dvc repro` and return its exit code."""
    name = one.node.name
    project.failure(name).unlink(missing_ok=True)
    binaries = str(Path(sys.executable).parent)  # `python` in dvc.yaml is this environment's
    environment = {
        **os.environ,
        ledger_lines.TOKEN: one.token,
        "PATH": os.pathsep.join([binaries, os.environ.get("PATH", os.defpath)]),
        "PYTHONUNBUFFERED": "1",
        "LAPVQA_PROGRESS": "json",
        "DVC_NO_ANALYTICS": "1",
    }
    project.log(name).parent.mkdir(parents=True, exist_ok=True)
    with project.log(name).open("w", encoding="utf-8") as log:
        return child_process.run(
            [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "-s", name],
            cwd=project.root,
            environment=environment,
            on_line=output.to(log),
            stop=stop,
        )


def failure(project: Project, name: str, code: int, tail: Iterable[str]) -> errors.LapvqaError:
    """Return the stage's own error; `dvc repro` itself ends with 255 whatever it was."""
    if project.failure(name).exists():
        facts = json.loads(project.failure(name).read_bytes())
        kind = getattr(errors, facts["error"], None)
        if kind is not None and kind is not errors.DicomError:
            error: errors.LapvqaError = kind(f"{name}: {facts['message']}", hint=facts["hint"])
            return error
    lines = "\n".join(tail)
    if full := errors.full_disk(lines):
        return errors.StorageFullError(f"{name}: {full.message}", hint=full.hint)
    exits = _EXITED.findall(lines)
    refused = None if exits else errors.forbidden(lines, project.root)
    if refused is not None:
        return errors.NotAllowedError(f"{name}: {refused.message}", hint=refused.hint)
    if not exits and "busy" in lines:
        return errors.BusyError(
            f"{name}: another DVC command is at work in this project",
            hint="wait for it; `lapvqa status` shows what is running",
        )
    stage_code = int(exits[-1]) if exits else code
    how = f"exit code {stage_code}" if stage_code >= 0 else f"signal {-stage_code}"
    memory = "; was there too little memory?" if stage_code == -signal.SIGKILL else ""
    log = project.log(name).relative_to(project.root)
    return StageFailedError(
        f"{name}: ended with {how}{memory}; its last lines:\n{lines}",
        hint=f"see {log}; the next run continues from here",
        exit_code=_own_exit(stage_code),
    )


def _own_exit(code: int) -> int:
    """Return the run's exit code for a stage's: a signal from outside is no fault of ours."""
    code = _SIGNALLED - code if code < 0 else code
    is_known = code in _KNOWN_EXITS or _SIGNALLED < code <= _SIGNALLED + max(signal.Signals)
    return code if is_known else EXIT_FAULT


@dataclass(frozen=True)
class _Before:
    """What tells, once a stage's `dvc repro` has ended, whether the stage has run."""

    lock: LockedStage | None
    record: bytes
    """What the stage itself kept of its last run."""
    is_whole: bool
    """No output was missing."""

    @classmethod
    def of(cls, project: Project, node: StageNode, lock: LockedStage | None) -> _Before:
        return cls(
            lock,
            _own_record(project, node.name),
            all((project.root / out).exists() for out in node.outs),
        )


def _own_record(project: Project, name: str) -> bytes:
    path = project.run_file(name)
    return path.read_bytes() if path.exists() else b""


def _outcome(
    project: Project, node: StageNode, before: _Before, after: LockedStage, seconds: float
) -> StageOutcome:
    """Say whether the stage ran: by its own record, which each run of it writes anew.

    Without one (a command that is not of this library), by whether dvc.lock has changed. What DVC
    prints is for people, and may change.
    """
    record = _own_record(project, node.name)
    changed = before.lock != after
    if record == before.record and (record or not changed):
        was_restored = changed or not before.is_whole
        reason = "restored from DVC's cache" if was_restored else ""
        return StageOutcome(node.name, "up to date", seconds, reason)
    if node.always_changed and before.lock is not None and before.lock.outs == after.outs:
        return StageOutcome(node.name, "up to date", seconds, "looked again, nothing new")
    facts = json.loads(record) if record else {}
    # The whole reason stands in the closing lines, with what to set.
    absent = str(facts.get("counts", {}).get("reason", "")).partition(":")[0]
    # The stage's own seconds, as `lapvqa status` and the ledger have them: without DVC's.
    return StageOutcome(node.name, "ran", facts.get("seconds", seconds), absent=absent)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
