"""``lapvqa sync``: bring records that waited for MLflow into it."""

from __future__ import annotations

from flows.commands import terminal
from lapvqa.project import Project


def execute(project: Project) -> int:
    """Replay what is spooled; nothing is lost or doubled, however often it is asked for."""
    from tasks.mlflow_records.records import sync_records

    runs = sync_records(project)
    what = f"{runs} run{'s' if runs != 1 else ''} brought into MLflow" if runs else "nothing waits"
    terminal.console().print(f"records: {what}")
    return 0
