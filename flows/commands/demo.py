"""``lapvqa demo``: make the demo archive, then run the pipeline on it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from flows.commands import terminal
from lapvqa import storage
from lapvqa.errors import ConfigError
from lapvqa.project import DEMO_MARK, Project
from lapvqa.uptodate import staleness

if TYPE_CHECKING:
    from rich.console import Console


def execute(project: Project, *, patients: int, studies: int, seed: int) -> int:
    """Write the archive where params.yaml says, run everything, print how long each part took."""
    from flows.commands import run_summary
    from flows.commands.run import bring_up_to_date
    from lapvqa import vanished
    from lapvqa.synth import mimic_copy

    console = terminal.console()
    started = time.monotonic()
    folder = demo_folder(project)
    _require_no_own_source(project)
    mark = folder / mimic_copy.FOLDER / DEMO_MARK
    before = mark.read_bytes() if mark.exists() else b""
    with storage.lock(project.run_lock, what="a run of this project"):
        # The server needs ten seconds to come up; the archive is drawn meanwhile.
        _start_server(project)
        write_archive(project, folder, patients, studies, seed, console)
    archive_made = time.monotonic()
    if staleness.nothing_to_do(staleness.check(project)):
        console.print("every stage is up to date\n")
        run_summary.show(project, console)
    else:
        if mark.read_bytes() != before:  # an archive of other sizes took its place
            vanished.accept(project)
        bring_up_to_date(project, None, console)
    console.print(
        f"demo archive {terminal.span(archive_made - started)}, "
        f"pipeline {terminal.span(time.monotonic() - archive_made)}, "
        f"in all {terminal.span(time.monotonic() - started)}"
    )
    return 0


def write_archive(
    project: Project, folder: Path, patients: int, studies: int, seed: int, console: Console
) -> None:
    """Draw the archive, and show how far it is."""
    from lapvqa.machine import load_machine
    from lapvqa.synth.archive import write_demo
    from tasks.display import counting

    with counting(console, "demo archive", "images") as on_progress:
        counts = write_demo(
            folder, patients=patients, studies=studies, seed=seed,
            workers=load_machine(project).workers, on_progress=on_progress,
        )  # fmt: skip
    numbers = ", ".join(f"{name} {number}" for name, number in counts.items())
    console.print(f"demo archive in {folder.name}/: {numbers}", soft_wrap=True)


def demo_folder(project: Project) -> Path:
    """Return where the demo archive goes; ConfigError if params.yaml names another archive."""
    from lapvqa.params import load_params
    from lapvqa.synth import mimic_copy

    source = Path(load_params(project.params).inventory.source)
    if source.is_absolute() or source.name != mimic_copy.FOLDER:
        raise ConfigError(
            f"params.yaml: inventory.source is {source}; the demo is written to "
            f"demo/{mimic_copy.FOLDER}",
            hint=f"set inventory.source to demo/{mimic_copy.FOLDER}; "
            "your own archive belongs into local.yaml: lapvqa run --source DIR",
        )
    return project.root / source.parent


def _require_no_own_source(project: Project) -> None:
    """Raise ConfigError if the project reads an archive of its own: its results would be lost."""
    from lapvqa.machine import load_machine

    if load_machine(project).paths.source is not None:
        raise ConfigError(
            "this project reads an archive of its own (paths.source in local.yaml); the demo would "
            "take its place, in data/, models/ and results/",
            hint="make the demo in another clone; or go back first: lapvqa run --source "
            "demo/mimic-cxr",
        )


def _start_server(project: Project) -> None:
    from tasks.prefect_server import start_server_early

    start_server_early(project)
