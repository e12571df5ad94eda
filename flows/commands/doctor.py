"""``lapvqa doctor``: is this machine fit for a run?"""

from __future__ import annotations

from flows.commands import screen
from flows.commands.checks import FAIL, OK, WARN, Check, run_all
from lapvqa.errors import EXIT_USER
from lapvqa.project import Project

_COLOURS = {OK: "green", WARN: "yellow", FAIL: "red"}


def execute(project: Project) -> int:
    """Print each check as it is made; EXIT_USER if something needed does not work."""
    console = screen.console()
    found = []
    for check in run_all(project):
        found.append(check)
        colour = _COLOURS[check.status]
        console.print(f"[{colour}]{check.status:4}[/]  {check.name:44} ", end="", soft_wrap=True)
        console.print(check.found, markup=False, soft_wrap=True)
        if check.remedy:
            console.print(f"      {'':44} what to do: {check.remedy}", markup=False, soft_wrap=True)
    console.print(_verdict(found), markup=False)
    return EXIT_USER if any(check.status == FAIL for check in found) else 0


def _verdict(found: list[Check]) -> str:
    counts = {status: sum(check.status == status for check in found) for status in (OK, WARN, FAIL)}
    numbers = ", ".join(f"{number} {status}" for status, number in counts.items() if number)
    fit = "this machine is fit for a run" if not counts[FAIL] else "a run would fail here"
    return f"{numbers}: {fit}"
