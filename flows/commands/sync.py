"""``lapvqa sync``: make up for what a killed run, or MLflow's absence, left undone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.commands import terminal
from lapvqa import storage
from lapvqa.project import Project

if TYPE_CHECKING:
    from tasks.settling import Settled


def execute(project: Project) -> int:
    """Settle ledger, records and registry; nothing is lost or doubled, however often."""
    from tasks.settling import settle

    if not project.state.exists() and not project.dvc_lock.exists():
        terminal.console().print("records: nothing waits")
        return 0
    with storage.lock(project.run_lock, what="a run of this project"):
        terminal.console().print(f"records: {told(settle(project))}")
    return 0


def told(settled: Settled) -> str:
    """Return what was made up for, in words."""
    runs, stages = settled.records, ", ".join(settled.stages)
    made = [
        f"{runs} run{'s' if runs != 1 else ''} brought into MLflow" if runs else "",
        f"the ledger now tells of {stages}" if stages else "",
    ]
    return "; ".join(filter(None, made)) or "nothing waits"
