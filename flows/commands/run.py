"""``lapvqa run``: bring the project up to date, or say that it is."""

from __future__ import annotations

import difflib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from flows.commands import screen
from lapvqa import storage, uptodate
from lapvqa.errors import ConfigError, SourceError
from lapvqa.layout import Layout
from lapvqa.uptodate import StageState

if TYPE_CHECKING:
    from rich.console import Console

_RESULTS = "results: reports/index.html, lapvqa status"


def execute(
    layout: Layout,
    *,
    stage: str | None = None,
    params_file: Path | None = None,
    source: Path | None = None,
) -> int:
    """Run what is stale; print what was done, the results, and where to look."""
    started = time.monotonic()
    console = screen.console()
    if source or params_file:
        _edit_settings(layout, source, params_file, console)
    if _said_nothing_to_do(layout, stage, console):
        console.print(f"nothing to do ({screen.span(time.monotonic() - started)}); {_RESULTS}")
        return 0
    bring_up_to_date(layout, stage, console)
    console.print(f"done in {screen.span(time.monotonic() - started)}")
    return 0


def bring_up_to_date(layout: Layout, stage: str | None, console: Console) -> None:
    """Run the pipeline or one stage, and show what came out."""
    from flows.commands import outcome

    _run(layout, stage, console)
    console.print()
    outcome.show(layout, console)


def bring_stage_up_to_date(layout: Layout, stage: str, console: Console) -> None:
    """Run one stage if it is stale, or say that it is not."""
    if not _said_nothing_to_do(layout, stage, console):
        _run(layout, stage, console)


def _run(layout: Layout, stage: str | None, console: Console) -> None:
    from flows.run import run_pipeline

    _require_source(layout, stage)
    run_pipeline(layout.root, stage=stage, console=console)


def _said_nothing_to_do(layout: Layout, stage: str | None, console: Console) -> bool:
    states = uptodate.check(layout)
    if stage is not None:
        return _said_stage_is_up_to_date(states, stage, console)
    if not uptodate.nothing_to_do(states):
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
    layout: Layout, source: Path | None, params_file: Path | None, console: Console
) -> None:
    from flows.commands import settings

    # A run at work would take up the new values halfway.
    with storage.lock(layout.run_lock, what="a run of this project"):
        if params_file is not None:
            changes = settings.merge_params(layout, params_file)
            for key, before, now in changes:
                console.print(f"params.yaml: {key} {before} -> {now}", markup=False)
            if not changes:
                console.print(f"params.yaml: has the values of {params_file} already", markup=False)
        if source is not None:
            console.print(settings.set_source(layout, source), markup=False, soft_wrap=True)


def _require_source(layout: Layout, stage: str | None) -> None:
    """Say at once what the first stage would say after half a minute of starting servers."""
    from lapvqa.config import load_machine
    from lapvqa.params import load_params

    params, machine = load_params(layout.params), load_machine(layout)
    folder = machine.folder("source", params.inventory, layout)
    if stage in (None, "inventory", "ingest") and not folder.is_dir():
        raise SourceError(
            f"expected an archive of DICOM files and reports at {folder}, found "
            f"{'a file' if folder.exists() else 'nothing'}",
            hint="make the demo archive with `lapvqa demo`, or name yours: lapvqa run --source DIR",
        )
