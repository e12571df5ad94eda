"""``lapvqa run``: bring the project up to date, or say that it is.

Light to import: "nothing to do" is decided from what the last run left, before Prefect, DVC or
MLflow is loaded. ``run_pipeline`` starts the Prefect server before it imports them, so that their
seconds overlap; the flow itself is in ``flows.pipeline``.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import lapvqa
from flows.commands import terminal
from lapvqa import storage
from lapvqa.errors import ConfigError, SourceError, no_such
from lapvqa.project import DEMO_MARK, DRAWN_MARK, Project
from lapvqa.runtime import importing, interruptible, signals_held
from lapvqa.uptodate import stagefile, staleness

if TYPE_CHECKING:
    from rich.console import Console

    from tasks.display import StageOutcome
    from tasks.prefect_server import Server
    from tasks.session import Session

_RESULTS = "results: reports/index.html, lapvqa status"


def execute(
    project: Project,
    *,
    stage: str | None = None,
    params_file: Path | None = None,
    preset: str | None = None,
    source: Path | None = None,
    reports: Path | None = None,
    accept_loss: bool = False,
) -> int:
    """Run what is stale; print what was done, the results, and where to look."""
    started = time.monotonic()
    console = terminal.console()
    _require_own_code(project)
    if source or reports or params_file or preset:
        _edit_settings(project, source, reports, params_file, preset, console)
    if accept_loss:
        from lapvqa import vanished

        vanished.accept(project)
    if _said_nothing_to_do(project, stage, console):
        console.print(f"nothing to do ({terminal.span(time.monotonic() - started)}); {_RESULTS}")
        return 0
    bring_up_to_date(project, stage, console)
    console.print(f"done in {terminal.span(time.monotonic() - started)}")
    return 0


def bring_up_to_date(project: Project, stage: str | None, console: Console) -> None:
    """Run the pipeline or one stage, and show what came out."""
    from flows.commands import run_summary

    _run(project, stage, console)
    console.print()
    run_summary.show(project, console, stage)


def bring_stage_up_to_date(project: Project, stage: str, console: Console) -> None:
    """Run one stage and what it stands on, as far as they are stale, or say that none is."""
    if not _said_nothing_to_do(project, stage, console):
        _run(project, stage, console)


def _run(project: Project, stage: str | None, console: Console) -> None:
    _require_source(project, stage)
    _require_room(project, stage, console)
    run_pipeline(project.root, stage=stage, console=console)


@dataclass
class RunResult:
    """What one run did."""

    stages: list[StageOutcome] = field(default_factory=list)
    """All stages in the order of the graph: "ran" or "up to date"."""
    prefect_flow_run: str = ""
    mlflow_run: str | None = None
    """None if there was nothing to do, or MLflow is down."""


def run_pipeline(
    root: Path,
    *,
    stage: str | None = None,
    console: Console | None = None,
    progress: bool = True,
) -> RunResult:
    """Bring the project in ``root`` up to date, or one stage of it, and return what was done.

    ``console``: where lines and the live bar go; None for nowhere. Raises the failed stage's own
    LapvqaError (its ``exit_code`` is the one to end with), ConfigError for a bad params.yaml,
    BusyError if another run of the project is at work, KeyboardInterrupt on SIGINT and SIGTERM
    (the stage's processes are gone then, and the next run continues).
    """
    from rich.console import Console

    from lapvqa.params import load_params
    from tasks.display import Display
    from tasks.prefect_server import forget_address, start_server_early
    from tasks.session import opened
    from tasks.work import working

    project = Project(root.resolve())
    load_params(project.params)
    if stage is not None:
        _require_stage(stage, stagefile.declared(project))
    display = Display(console or Console(quiet=True), progress=progress)
    with interruptible(), opened(project.root, display) as session, working(session, stage):
        server = start_server_early(project)
        try:
            _run_flow(session, server, stage)
        finally:
            forget_address(server)
        return _result(session, stage)


def _run_flow(session: Session, server: Server, stage: str | None) -> None:
    from tasks.mlflow_records.connection import quieten

    # These imports take seconds, which the server and the first stage need too.
    if session.work is not None:
        session.work.under_way.wait()
    quieten()
    with importing():
        with signals_held():
            import mlflow  # noqa: F401 - the records import it; they may wait long, which may be cut

            from flows.pipeline import make_stage_flow, pipeline
            from tasks.prefect_flow import run_flow
            from tasks.prefect_server import project_tag
        session.records.open()
    flow = pipeline if stage is None else make_stage_flow(stage)
    run_flow(
        flow, session.project, server, session.history, tag=project_tag(session.project),
        say=session.display.say, about=session.records.describe(),
    )  # fmt: skip


def _result(session: Session, stage: str | None) -> RunResult:
    from tasks.display import StageOutcome

    known = {outcome.name: outcome for outcome in session.outcomes}
    return RunResult(
        stages=[
            known.get(name) or StageOutcome(name, "up to date", 0.0)
            for name in session.graph
            if stage is None or name in known
        ],
        prefect_flow_run=session.flow_run,
        mlflow_run=session.records.pipeline_run,
    )


def _said_nothing_to_do(project: Project, stage: str | None, console: Console) -> bool:
    states = staleness.check(project)
    if stage is not None:
        _require_stage(stage, [state.name for state in states])
        states = [state for state in states if state.name == stage]
    if not staleness.nothing_to_do(states):
        return False
    _settle(project, console)
    for state in states:
        console.print(f"{state.name}: up to date")
    return True


def _settle(project: Project, console: Console) -> None:
    """Make up for what a killed run left undone, before there is nothing to do."""
    if not project.unsettled.exists():
        return
    from flows.commands.sync import told
    from tasks.dvc_repository import mend_cut_files, put_in_order, read_graph
    from tasks.mlflow_records.connection import RecordsUnavailableError
    from tasks.settling import settle

    try:
        with storage.lock(project.run_lock, what="a run of this project"):
            mend_cut_files(project, console.print)
            put_in_order(project, (node.name for node in read_graph(project)))
            console.print(f"an earlier run was cut short: {told(settle(project))}")
    except RecordsUnavailableError as error:
        console.print(f"an earlier run's records wait: {error}", markup=False, soft_wrap=True)


def _require_stage(stage: str, known: Iterable[str]) -> None:
    """Raise ConfigError for an unknown stage, before anything is started."""
    names = list(known)
    if stage not in names:
        raise no_such("stage", stage, names)


def _edit_settings(
    project: Project,
    source: Path | None,
    reports: Path | None,
    params_file: Path | None,
    preset: str | None,
    console: Console,
) -> None:
    from flows.commands import edit_settings, presets

    # A run at work would take up the new values halfway.
    with storage.lock(project.run_lock, what="a run of this project"):
        if reports is not None:
            said = edit_settings.set_reports(project, reports, source)
            console.print(said, markup=False, soft_wrap=True)
        elif source is not None:
            console.print(edit_settings.set_source(project, source), markup=False, soft_wrap=True)
        changes: dict[str, list[edit_settings.Change]] = {}
        if preset is not None:
            preset = presets.choose(project) if preset == presets.AUTO else preset
            changes[f"preset {preset}"] = presets.apply(project, preset)
            for line in presets.describe(project, preset):
                console.print(line, markup=False, soft_wrap=True)
        if params_file is not None:
            changes[str(params_file)] = edit_settings.merge_params(project, params_file)
        for name, changed in changes.items():
            for key, before, now in changed:
                console.print(f"params.yaml: {key} {before} -> {now}", markup=False)
            if not changed:
                console.print(f"params.yaml: has the values of {name} already", markup=False)


def _require_own_code(project: Project) -> None:
    """Raise ConfigError if this command belongs to another clone: a copied .venv still does."""
    running, own = Path(lapvqa.__file__).parent, project.root / "lapvqa"
    if (own / "__init__.py").is_file() and not own.samefile(running):
        raise ConfigError(
            f"expected the code of this project, {own}, found that of {running}",
            hint="a moved or copied project needs an environment of its own: delete .venv, then "
            "`make setup`",
        )


def _require_room(project: Project, stage: str | None, console: Console) -> None:
    """Say what the run would lose by its settings; refuse what the disk cannot hold."""
    from flows.commands import cost, presets
    from lapvqa.lineage import members
    from lapvqa.params import load_params

    stale = {state.name for state in staleness.check(project) if state.stale or not state.known}
    if stage is None and "pretrain" in stale:
        for line in presets.unfit(project, load_params(project.params)):
            console.print(line, markup=False, soft_wrap=True)
    if "pretrain" in (stale if stage is None else stale & {stage}):
        members.require(project)  # else a training of hours could not be told of
    cost.require_disk(project, stale if stage is None else stale & {stage})


def _require_source(project: Project, stage: str | None) -> None:
    """Say at once what the first stage would say after half a minute of starting servers."""
    from lapvqa.machine import load_machine
    from lapvqa.params import load_params

    params, machine = load_params(project.params), load_machine(project)
    folder = machine.folder("source", params.inventory, project)
    if stage in (None, "inventory", "ingest") and not folder.is_dir():
        raise SourceError(
            f"expected an archive of DICOM files and reports at {folder}, found "
            f"{'a file' if folder.exists() else 'nothing'}",
            hint="make the demo archive with `lapvqa demo`, or name yours: lapvqa run --source DIR",
        )
    if (folder.parent / DRAWN_MARK).exists() and not (folder / DEMO_MARK).exists():
        raise SourceError(
            f"expected the whole demo archive at {folder}, found one that was not drawn to its end",
            hint="run `lapvqa demo` again, with the same options",
        )
