"""What a machine's own timers are given, so that they look instead of a process that stays.

Both look by `lapvqa retrain --due`, each quarter of an hour. The clock itself stays the project's,
in its own zone: after downtime the first look finds the last of its times that was missed, and the
other causes are looked at as well.
"""

from __future__ import annotations

import re
import shlex
import sys

from lapvqa.errors import EXIT_BUSY, EXIT_INTERRUPTED
from lapvqa.project import Project
from lapvqa.retraining import clock
from tasks.prefect_server import project_tag

_QUARTERS = {"*/15", "0", "15", "30", "45"}
_NO_UNIT_NAME = re.compile(r"[^A-Za-z0-9_.-]+")
_UNIT_NAME_AT_MOST = 100
_FOR_SYSTEMD = str.maketrans({"\\": r"\\", '"': r"\"", "%": "%%", "$": "$$"})


def looks() -> list[str]:
    """Return the command that decides about what is wanted, and does it."""
    return [sys.executable, "-m", "flows", "retrain", "--due"]


def crontab_line(project: Project) -> str:
    """Return a line for `crontab -e` that looks each quarter of an hour and at the clock's minutes.

    Of a clock only the minutes are cron's: its hours are those of its zone.
    """
    schedule = clock.load(project)
    minute = schedule.cron.split()[0] if schedule else "*/15"
    others = [part for part in minute.split(",") if part not in _QUARTERS]
    minutes = "*" if "*" in others else ",".join(["*/15", *others])
    log = shlex.quote(str(project.log("cron")))
    line = f"{minutes} * * * * {_in_place(project, shlex.join(looks()))} >> {log} 2>&1"
    return line.replace("%", r"\%")  # a % ends a line of crontab


def systemd_units(project: Project) -> str:
    """Return a service and a timer of systemd; Persistent looks once for all that was missed."""
    name = unit_name(project)
    # By a shell: systemd starts no program whose path has a quote or a backslash.
    run = _in_place(project, f"exec {shlex.join(looks())}").translate(_FOR_SYSTEMD)
    return (
        f"# ~/.config/systemd/user/{name}.service\n"
        "[Unit]\nDescription=LAPVQA: retrain if something asks for it\n\n"
        f'[Service]\nType=oneshot\nExecStart=/bin/sh -c "{run}"\n'
        f"KillSignal=SIGINT\nTimeoutStopSec=30\nSuccessExitStatus={EXIT_BUSY} {EXIT_INTERRUPTED}\n"
        f"\n# ~/.config/systemd/user/{name}.timer\n"
        f"[Unit]\nDescription=LAPVQA: look every quarter of an hour\n\n"
        "[Timer]\nOnCalendar=*:0/15\nPersistent=true\nRandomizedDelaySec=60\n\n"
        "[Install]\nWantedBy=timers.target\n\n"
        f"# systemctl --user enable --now {name}.timer\n"
    )


def unit_name(project: Project) -> str:
    """Return the units' name: the folder's, as far as systemd takes it, and a digest of its place.

    So projects in folders of one name have timers of their own, as they have deployments.
    """
    folder = _NO_UNIT_NAME.sub("_", project.root.name)[:_UNIT_NAME_AT_MOST]
    return f"lapvqa-{folder}-{project_tag(project).removeprefix('project-')}"


def _in_place(project: Project, command: str) -> str:
    return f"cd {shlex.quote(str(project.root))} && {command}"
