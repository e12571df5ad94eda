"""``lapvqa schedule``: the pipeline by the clock, on this machine."""

from __future__ import annotations

from flows.commands import screen
from lapvqa.project import Project


def execute(project: Project, *, cron: str) -> int:
    """Keep the schedule until interrupted; ConfigError if ``cron`` is no cron expression."""
    from flows.schedule import schedule

    schedule(project.root, cron, console=screen.console())
    return 0
