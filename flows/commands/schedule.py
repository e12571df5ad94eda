"""``lapvqa schedule``: the pipeline by the clock, on this machine."""

from __future__ import annotations

from flows.commands import screen
from lapvqa.layout import Layout


def execute(layout: Layout, *, cron: str) -> int:
    """Keep the schedule until interrupted; ConfigError if ``cron`` is no cron expression."""
    from flows.schedule import schedule

    schedule(layout.root, cron, console=screen.console())
    return 0
