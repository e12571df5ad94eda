"""``lapvqa run``: bring the project up to date, or say that it is."""

from __future__ import annotations

import difflib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from flows.commands import screen
from lapvqa import storage
from lapvqa.errors import ConfigError, SourceError
from lapvqa.project import Project
from lapvqa.uptodate import staleness
from lapvqa.uptodate.staleness import StageState

if TYPE_CHECKING:
    from rich.console import Console

_RESULTS = "results: reports/index.html, lapvqa status"


def execute(
    project: Project,
    *,
    stage: str | None = None,
    params_file: Path | None = None,
    source: Path | None = None,
) -> int:
    """Run what is stale; print what was done, the results, and where to look."""
    started = time.monotonic()
    console = screen.console()
    if source or params_file:
        _edit_settings(project, source, params_file, console)
    if _said_nothing_to_do(project, stage, console):
        console.print(f"nothing to do ({screen.span(time.monotonic() - started)}); {_RESULTS}")
        return 0
    bring_up_to_date(project, stage, console)
    console.print(f"done in {screen.span(time.monotonic() - started)}")
    return 0


def bring_up_to_date(project: Project, stage: str | None, console: Console) -> None:
    """Run the pipeline or one stage, and show what came out."""
    from flows.commands import outcome

    _run(project, stage, console)
    console.print()
    outcome.show(project, console)


def bring_stage_up_to_date(project: Project, stage: str, console: Console) -> None:
    """Run one stage if it is stale, or say that it is not."""
    if not _said_nothing_to_do(project, stage, console):
        _run(project, stage, console)


def _run(project: Project, stage: str | None, console: Console) -> None:
    from flows.run import run_pipeline

    _require_source(project, stage)
    run_pipeline(project.root, stage=stage, console=console)


def _said_nothing_to_do(project: Project, stage: str | None, console: Console) -> bool:
    states = staleness.check(project)
    if stage is not None:
        return _said_stage_is_up_to_date(states, stage, console)
    if not staleness.nothing_to_do(states):
        return False
    for state in states:
        console.print(f"{state.name}: up to date")
    return True


def _said_stage_is_up_to_date(states: list[StageState], stage: str, console: Console) -> bool:
    state = next((state for state in states if state.name == stage), None)
    if state is None:
        raise _unknown_stage(stage, [state.name for state in states])
    above = [reason.split(" ", 1)[1] for reason in state.reasons if _is_upstream(reason)]
    if len(above) < len(state.reasons):
        return False
    note = f"; but {', '.join(above)} upstream would change it: lapvqa run" if above else ""
    console.print(f"{stage}: up to date{note}")
    return True


def _is_upstream(reason: str) -> bool:
    return reason.startswith("upstream ")


def _unknown_stage(stage: str, known: list[str]) -> ConfigError:
    near = difflib.get_close_matches(stage, known, n=1)
    return ConfigError(
        f"there is no stage {stage!r}",
        hint=f"did you mean {near[0]}?" if near else f"stages: {', '.join(known)}",
    )


def _edit_settings(
    project: Project, source: Path | None, params_file: Path | None, console: Console
) -> None:
    from flows.commands import settings

    # A run at work would take up the new values halfway.
    with storage.lock(project.run_lock, what="a run of this project"):
        if params_file is not None:
            changes = settings.merge_params(project, params_file)
            for key, before, now in changes:
                console.print(f"params.yaml: {key} {before} -> {now}", markup=False)
            if not changes:
                console.print(f"params.yaml: has the values of {params_file} already", markup=False)
        if source is not None:
            console.print(settings.set_source(project, source), markup=False, soft_wrap=True)


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
