"""``lapvqa schedule``: the pipeline by the clock, a Prefect deployment that this process serves."""

from __future__ import annotations

import os
import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, available_timezones

from flows.commands import terminal
from lapvqa.errors import ConfigError
from lapvqa.machine import load_machine
from lapvqa.params import load_params
from lapvqa.project import Project

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN_RUNS = 3


def execute(project: Project, *, cron: str) -> int:
    """Keep the schedule until interrupted; ConfigError if ``cron`` is no cron expression."""
    schedule(project.root, cron, console=terminal.console())
    return 0


def schedule(root: Path, cron: str, *, console: Console | None = None) -> None:
    """Run the pipeline of ``root`` whenever ``cron`` says, in the foreground, until Ctrl-C.

    At most one run at a time. Raises ConfigError if ``cron`` is no cron expression, or if
    params.yaml is not in order.
    """
    from rich.console import Console

    from tasks.prefect_server import start_server_early

    project = Project(root.resolve())
    load_params(project.params), load_machine(project)
    server = start_server_early(project, services="schedule")
    zone = local_timezone()
    times = next_times(cron, zone)
    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType

    from flows.commands.run import interruptible
    from flows.commands.status import holder_of_lock
    from flows.pipeline import pipeline
    from tasks.prefect_history import crash_leftovers
    from tasks.prefect_server import project_tag

    server.wait()
    if not holder_of_lock(project.run_lock):
        crash_leftovers(project)
    say = (console or Console()).print
    shown = ", ".join(f"{time:%Y-%m-%d %H:%M}" for time in times)
    say(f"{server.describe()}; pages at {server.url.removesuffix('/api')}", soft_wrap=True)
    say(f"next runs ({zone}): {shown}; Ctrl-C stops", soft_wrap=True)
    say(f"without this process, by crontab: {crontab_line(project, cron)}", soft_wrap=True)
    with interruptible():
        pipeline.serve(
            name="lapvqa", schedule=Cron(cron, timezone=zone), limit=1,
            tags=[project_tag(project)], parameters={"root": str(project.root)},
            print_starting_message=False, entrypoint_type=EntrypointType.MODULE_PATH,
        )  # fmt: skip
    say("the schedule has ended; what has run stays recorded")


def next_times(cron: str, zone: str, *, count: int = _SHOWN_RUNS) -> list[datetime]:
    """Return the next times that a cron expression names; ConfigError if it is none."""
    from prefect._vendor.croniter import croniter

    try:
        clock = croniter(cron, datetime.now(ZoneInfo(zone)))
        return [clock.get_next(datetime) for _ in range(count)]
    except (ValueError, KeyError) as error:
        raise ConfigError(
            f"expected five fields (minute hour day month weekday), found {cron!r}: {error}",
            hint='every night at two: --cron "0 2 * * *"',
        ) from error


def local_timezone() -> str:
    """Return this machine's time zone by name (Prefect's schedules need one), UTC if unknown."""
    place = Path("/etc/localtime").resolve().as_posix()
    for name in (os.environ.get("TZ", ""), place.partition("zoneinfo/")[2]):
        if name in available_timezones():
            return name
    return "UTC"


def crontab_line(project: Project, cron: str) -> str:
    """Return a line for `crontab -e` that does the same without a process that stays."""
    command = Path(sys.executable).with_name("lapvqa")
    log = project.log("cron")
    return (
        f"{cron} cd {shlex.quote(str(project.root))} && {shlex.quote(str(command))} run "
        f">> {shlex.quote(str(log))} 2>&1"
    )
