"""``lapvqa retrain``: decide whether the encoder is trained anew, by hand or for a timer; do it.

A timer (cron, systemd, Prefect) may call it as often as it likes: what is decided is decided by
params.yaml's section ``retraining`` and by what is wanted, not by who asks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rich.console import Console

from flows.commands import terminal
from lapvqa.errors import BusyError
from lapvqa.project import Project
from lapvqa.report import freshness
from lapvqa.retraining import lease, minutes, rounds, situation, wanted
from lapvqa.retraining.decision import Decision, decide, in_hours
from lapvqa.retraining.situation import Situation
from lapvqa.retraining.wanted import HAND, Cause
from lapvqa.runtime import importing, signals_held


def execute(project: Project, *, due: bool, dry_run: bool, force: bool, way: str | None) -> int:
    """Decide, and do what is decided; ``due``: nobody asks by hand.

    Raises BusyError while a round or a run is at work; what is asked for by hand is kept.
    """
    console = terminal.console()
    facts: dict[str, Any] = {**({"force": True} if force else {}), **({"way": way} if way else {})}
    now = situation.zoned_now(project)
    params = rounds.read_params(project)
    if dry_run:
        asked = () if due else (Cause.said(HAND, now, facts),)
        if asked:
            console.print("as if asked for by hand now; --due: what a timer would decide")
        seen = situation.look(project, params, now)
        seen = replace(seen, causes=wanted.merged([*seen.causes, *asked]))
        _show(seen, decide(seen, params.retraining, now), console)
        return 0
    if not due:
        wanted.want(project, HAND, **facts)
    situation.tick(project, now)
    seen, decision = rounds.ask(project, now)
    if not decision.acts:
        if minutes.record(project, decision, seen, params.retraining, now):
            freshness.write_page(project)
        if seen.at_work:
            lease.refuse_second(project.round_lease)  # as who asks in the moment it begins is told
            raise BusyError(decision.why, hint="wait for it; `lapvqa status` shows what is running")
        console.print(decision.said, markup=False, soft_wrap=True)
        return 0
    run_flow(project)
    return 0


def run_flow(project: Project) -> None:
    """Run the flow of retraining in this process, recorded as every run is."""
    from tasks.display import Display
    from tasks.prefect_calls import History
    from tasks.prefect_server import forget_address, retraining_tag, start_server_early

    with lease.hold(project.round_lease):
        server = start_server_early(project)
        try:
            with importing(), signals_held():
                from flows.retraining import retraining
                from tasks.prefect_flow import run_flow
            say = Display(terminal.console()).say
            run_flow(retraining, project, server, History(), tag=retraining_tag(project), say=say)
        finally:
            forget_address(server)


def _show(seen: Situation, decision: Decision, console: Console) -> None:
    """Print a decision and what it looked at."""
    come = seen.arrived
    facts = {
        "wanted": wanted.in_words(decision.causes) or "nothing",
        "arrived": f"{come.words()}, {come.bytes / 1e9:.2f} GB",
        "last training": f"{seen.trained:%Y-%m-%d %H:%M}" if seen.trained else "none",
        "hours": f"{in_hours(seen.hours_spent)} this month, "
        f"{in_hours(seen.hours_expected)} expected",
        "could go on from": (seen.start or "")[:12] or f"nothing: {seen.no_start}",
    }
    for name, value in facts.items():
        console.print(f"{name:17} {value}", markup=False, soft_wrap=True)
    console.print(f"decision: {decision.said}", markup=False, soft_wrap=True)
    if decision.until:
        console.print(f"not before {decision.until:%Y-%m-%d %H:%M}", markup=False)
    console.print("nothing was changed: a look")
