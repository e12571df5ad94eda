"""``lapvqa watch``: a folder into which others write, into the archive."""

from __future__ import annotations

from pathlib import Path

from flows.commands import intake
from lapvqa.errors import ConfigError, SourceError
from lapvqa.machine import SOURCE_NAME
from lapvqa.project import Project
from lapvqa.recorder import counted


def execute(project: Project, folder: Path, *, name: str, keep: bool, once: bool) -> int:
    """Watch until interrupted, or once; 0."""
    from lapvqa.intake.inbox import open_inbox
    from lapvqa.intake.watch import Watcher, watch

    if not SOURCE_NAME.fullmatch(name):
        raise ConfigError(
            "expected a source's name of letters, digits, - and _, at most 16",
            hint="it becomes a folder of the archive: --name WARD2",
        )
    if not folder.is_dir():
        raise SourceError(
            f"expected a folder to watch at {folder}, found "
            f"{'a file' if folder.exists() else 'none'}",
            hint="make it, or name the folder into which others write",
        )
    job = intake.open_job(project, "watch")
    with open_inbox(job, f"watch-{name}") as inbox, intake.stop_on_signals() as stopped:
        filing = intake.filing(project, inbox)
        filing.recover()
        inputs = [path for name, path in job.folders.items() if name != "source"]
        watcher = Watcher(folder, name, filing, job.machine.reports, inputs, keep=keep)
        if not once:
            intake.say(f"{name}: watching")
        watch(watcher, stopped, once=once)
        intake.say(f"{name}: stopped; {counted(watcher.others, 'other file')} left")
    return 0
