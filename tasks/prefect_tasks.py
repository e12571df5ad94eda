"""The Prefect tasks of a run: look, run each stale stage, keep records, show results.

One stage of dvc.yaml is one task: a child `dvc --wait-for-lock repro -s STAGE`.
"""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.runtime import flow_run, task_run

from lapvqa import errors
from lapvqa.errors import EXIT_BAD_DATA, EXIT_BUSY, EXIT_FAULT, EXIT_INTERRUPTED, EXIT_USER
from lapvqa.lineage import drawing, runs
from lapvqa.project import Project
from lapvqa.recorder import PROGRESS_PREFIX
from lapvqa.report import freshness
from lapvqa.uptodate.stagefile import LockedStage
from tasks import child_process, ledger_lines, results, settling
from tasks.display import StageOutcome
from tasks.dvc_repository import StageNode, keep_dvc_lock, load_graph, stale_stages
from tasks.ledger_lines import Ids
from tasks.mlflow_records import spool
from tasks.mlflow_records.connection import public
from tasks.prefect_calls import ProgressBar, attempt, run_log
from tasks.session import Session, current, pipeline_task

_TAIL = 50
_LOGGED_LINES = 2000
_KNOWN_EXITS = {EXIT_USER, EXIT_BAD_DATA, EXIT_BUSY, EXIT_INTERRUPTED}
_EXITED = re.compile(r"exited with (-?\d+)")


class StageFailedError(errors.LapvqaError):
    """A stage ended without an error of its own; ``exit_code`` is the stage's, or EXIT_FAULT."""

    def __init__(self, message: str, *, hint: str, exit_code: int = EXIT_FAULT) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


@pipeline_task(name="read graph")
def read_graph() -> list[str]:
    """Read DVC's stage graph; return the stages in the order in which they run."""
    session = current()
    session.graph = {node.name: node for node in load_graph(session.project.root)}
    session.display.expect(list(session.graph), ledger_lines.last_times(session.project))
    session.records.main_params = results.main_params(session.graph.values())
    return list(session.graph)


@pipeline_task(name="find stale stages")
def find_stale(just_ran: list[str]) -> dict[str, str]:
    """Return the stages that may have to run, each with the reason; ``just_ran`` left out."""
    session = current()
    graph = list(session.graph.values())
    stale = stale_stages(session.project.root, graph, skip=frozenset(just_ran))
    for name in session.graph:
        run_log().info("%s: %s", name, stale.get(name, "up to date"))
    return stale


@pipeline_task(name="stage", task_run_name="{name}")
def run_stage(name: str, reason: str = "") -> str:
    """Run one stage as DVC would and return "ran" or "up to date".

    Raises what the stage raised (the same LapvqaError class, message and exit code), else
    StageFailedError with its last lines.
    """
    session = current()
    node, began = session.graph[name], time.time()
    require_inputs(session.project.root, node, session.graph)
    before = _Before.of(session.project, node)
    session.display.begin(name, reason)
    tags = _begin_tags(session, name)
    # An always-changed stage may find nothing new, which is no work to keep records of.
    child = None if node.always_changed else session.records.begin(name, node.params, tags)
    ids = Ids(flow_run.id, task_run.id, child, session.records.pipeline_run)
    output = _Output(session, name)
    try:
        code = _repro(session, name, ids, output)
        if code:
            raise failure(session.project, name, code, output)
    except BaseException as error:
        interrupted = not isinstance(error, Exception)
        if node.always_changed:
            session.records.begin(name, node.params, tags, started=began)
        status = spool.KILLED if interrupted else spool.FAILED
        session.records.end(name, status, tags={}, inputs={}, metrics={})
        ledger_lines.tell_failure(
            session.project, name,
            began=began, outcome=runs.INTERRUPTED if interrupted else runs.FAILED,
            params=node.params, commit=session.commit, ids=ids, seconds=time.time() - began,
        )  # fmt: skip
        how, why = ("interrupted", "") if interrupted else ("failed", _first_line(error))
        _finish(session, StageOutcome(name, how, time.time() - began, why))
        raise
    locks = keep_dvc_lock(session.project)
    after = locks[name]
    outcome = _outcome(session.project, node, before, after, time.time() - began)
    if outcome.status == "ran":
        if node.always_changed:
            child = session.records.begin(name, node.params, tags, started=began)
            ids = replace(ids, mlflow_run=child, mlflow_pipeline_run=session.records.pipeline_run)
        session.records.end(
            name,
            spool.FINISHED,
            tags=_end_tags(after),
            inputs=after.deps,
            metrics=results.metric_values(session.project.root, node.outs),
            pictures=_pictures(session.project, node),
        )
        ledger_lines.tell(
            session.project, name, locks,
            began=began, seconds=outcome.seconds, commit=session.commit, ids=ids,
        )  # fmt: skip
    else:
        session.records.discard(name)
    _finish(session, outcome)
    return outcome.status


@pipeline_task(name="record lineage")
def record_lineage() -> list[str]:
    """Complete the ledger with what ran outside of the pipeline; return those stages."""
    session = current()
    added = ledger_lines.complete(session.project, session.commit)
    settling.remember(session.project, run_log().warning)
    drawing.write_page(session.project)
    freshness.write_page(session.project)
    return added


@pipeline_task(name="register encoder")
def register_encoder() -> str | None:
    """Register the exported encoder with MLflow, once per set of weights; return its version."""
    session = current()
    version: str | None = session.records.attempt(
        lambda store: settling.register(session.project, store)
    )
    session.settled = session.records.store is not None
    return version


@pipeline_task(name="publish results")
def publish_results() -> int:
    """Show the result table, the report page and the MLflow run in Prefect; return the rows."""
    session = current()
    rows = results.result_rows(session.project)
    attempt(lambda: _show_results(session, rows))
    return len(rows)


def _show_results(session: Session, rows: list[dict[str, str]]) -> None:
    if rows:
        create_table_artifact(rows, key="results", description="Metrics with intervals by patient")
    page = session.project.report_page
    if page.exists():
        create_link_artifact(page.as_uri(), key="report", description="The report page")
    run, store = session.records.pipeline_run, session.records.store
    if run and store:
        address = public(store.uri)
        served = address if address.startswith("http") else "http://127.0.0.1:5000"
        create_link_artifact(
            f"{served}/#/experiments/{store.experiment}/runs/{run}",
            key="mlflow-run",
            description=f"The run in MLflow (embedded: mlflow ui --backend-store-uri {address})",
        )


@dataclass
class _Output:
    """What a stage prints: progress to the person, the rest to the run's log and a file."""

    session: Session
    stage: str
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL))
    _logged: int = 0
    _bar: ProgressBar | None = None

    def to(self, log: TextIO) -> Callable[[str], None]:
        """Return the function that takes each line; all but progress goes into ``log``."""
        told = run_log()

        def take(line: str) -> None:
            if line.startswith(PROGRESS_PREFIX):
                self._progress(json.loads(line.removeprefix(PROGRESS_PREFIX)))
                return
            log.write(line + "\n")
            log.flush()
            self.tail.append(line)
            self._logged += 1
            if self._logged <= _LOGGED_LINES:
                told.info(line)
            elif self._logged == _LOGGED_LINES + 1:
                told.warning("more lines than Prefect can take; all are in %s", log.name)
            if line.startswith(f"{self.stage}: ") and not line.startswith(f"{self.stage}: {{"):
                self.session.display.say(line)

        return take

    def _progress(self, entry: dict[str, Any]) -> None:
        self.session.display.progress(entry)
        if self._bar is None:
            key, what = f"progress-{_key(self.stage)}", f"{self.stage}: {entry['unit']}"
            self._bar = ProgressBar(key, what)
        self._bar.show(100.0 * entry["done"] / max(entry["total"], 1))

    def close(self) -> None:
        """Show the last of the progress."""
        if self._bar is not None:
            self._bar.stop()


def require_inputs(root: Path, node: StageNode, graph: dict[str, StageNode]) -> None:
    """Raise MissingArtifactError, which names the stage to run, where DVC would just stop."""
    makers = {out: name for name in node.upstream for out in graph[name].outs}
    for path in node.deps:
        if path in makers and not (root / path).exists():
            raise errors.MissingArtifactError(
                f"{node.name}: expected {path}, found nothing",
                hint=f"run `lapvqa run`, or `lapvqa run --stage {makers[path]}` first",
            )


def _repro(session: Session, name: str, ids: Ids, output: _Output) -> int:
    """Run the stage's `dvc repro` and return its exit code."""
    project = session.project
    project.failure(name).unlink(missing_ok=True)
    binaries = str(Path(sys.executable).parent)  # `python` in dvc.yaml is this environment's
    environment = {
        **os.environ,
        **ids.environment(),
        "PATH": os.pathsep.join([binaries, os.environ.get("PATH", os.defpath)]),
        "PYTHONUNBUFFERED": "1",
        "LAPVQA_PROGRESS": "json",
        "DVC_NO_ANALYTICS": "1",
    }
    project.log(name).parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        log = stack.enter_context(project.log(name).open("w", encoding="utf-8"))
        stack.callback(output.close)
        return child_process.run(
            [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "-s", name],
            cwd=project.root,
            environment=environment,
            on_line=output.to(log),
            stop=session.stop,
        )


def failure(project: Project, name: str, code: int, output: _Output) -> errors.LapvqaError:
    """Return the stage's own error; `dvc repro` itself ends with 255 whatever it was."""
    if project.failure(name).exists():
        facts = json.loads(project.failure(name).read_bytes())
        kind = getattr(errors, facts["error"], None)
        if kind is not None and kind is not errors.DicomError:
            error: errors.LapvqaError = kind(f"{name}: {facts['message']}", hint=facts["hint"])
            return error
    lines = "\n".join(output.tail)
    if os.strerror(errno.ENOSPC) in lines:
        return errors.StorageFullError(
            f"{name}: no space left on the disk",
            hint="free disk space, then run again; nothing was lost",
        )
    exits = _EXITED.findall(lines)
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
        exit_code=stage_code if stage_code in _KNOWN_EXITS else EXIT_FAULT,
    )


@dataclass(frozen=True)
class _Before:
    """What tells, once a stage's `dvc repro` has ended, whether the stage has run."""

    lock: LockedStage | None
    record: bytes
    """What the stage itself kept of its last run."""
    is_whole: bool
    """No output was missing."""

    @classmethod
    def of(cls, project: Project, node: StageNode) -> _Before:
        return cls(
            keep_dvc_lock(project).get(node.name),  # another stage's end may be writing it
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
    counts = json.loads(record).get("counts", {}) if record else {}
    # The whole reason stands in the closing lines, with what to set.
    absent = str(counts.get("reason", "")).partition(":")[0]
    return StageOutcome(node.name, "ran", seconds, absent=absent)


def _finish(session: Session, outcome: StageOutcome) -> None:
    session.outcomes.append(outcome)
    session.display.end(outcome)


def _begin_tags(session: Session, name: str) -> dict[str, str]:
    return {
        "dvc.stage": name,
        "git.commit": session.commit.sha or "not under git",
        "git.dirty": str(session.commit.dirty).lower(),
        "mlflow.source.git.commit": session.commit.sha or "",
        "prefect.flow_run_id": str(flow_run.id),
        **({spool.FLOW_NAME: session.flow_name} if session.flow_name else {}),
        "prefect.task_run_id": str(task_run.id),
    }


def _pictures(project: Project, node: StageNode) -> Path | None:
    """Return the folder of pictures, if it is an output of this stage."""
    relative = project.pictures_dir.relative_to(project.root).as_posix()
    return project.pictures_dir if relative in node.outs else None


def _end_tags(lock: LockedStage) -> dict[str, str]:
    deps = {f"dvc.dep.{path}": md5 for path, md5 in lock.deps.items()}
    return deps | {f"dvc.out.{path}": md5 for path, md5 in lock.outs.items()}


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _key(stage: str) -> str:
    """Return a stage's name in the letters that Prefect's artifact keys allow."""
    return re.sub(r"[^a-z0-9]+", "-", stage.lower()).strip("-")
