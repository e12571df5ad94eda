"""``lapvqa schedule``: a process that waits for a cause and has the retraining done, and its clock.

The process is light: it imports no orchestrator, looks every half minute, and starts `lapvqa
retrain --due` as a child when there is something to do. The same command can be called by cron, by
a timer of systemd or by a worker of Prefect instead; whoever calls, a round is at work once.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from flows.commands import terminal, timers
from lapvqa import storage
from lapvqa.errors import EXIT_BUSY, ConfigError, LapvqaError
from lapvqa.machine import load_machine
from lapvqa.params import load_params
from lapvqa.project import Project
from lapvqa.retraining import clock, minutes, pause, rounds, situation, wanted
from lapvqa.retraining.clock import Schedule
from lapvqa.retraining.decision import Answer
from tasks import child_process

LOOK_S = 30.0
_SHOWN_TIMES = 3
_PAUSE_AFTER_FAILURE_S = 300.0


def execute(project: Project, *, cron: str | None, zone: str | None) -> int:
    """Keep the schedule until interrupted; BusyError if another process keeps it."""
    load_params(project.params)
    with storage.lock(project.state / "scheduler.lock", what="the schedule of this project"):
        if cron is not None:
            set_clock(project, cron, zone)
        for line in _described(project):
            _say(line)
        _say(f"without this process, by crontab: {timers.crontab_line(project)}")
        _say("waits for what asks for a training, until Ctrl-C")
        try:
            keep(project, look_s=LOOK_S)
        except KeyboardInterrupt:
            _say("the schedule has ended; what has run stays recorded")
    return 0


def keep(project: Project, *, look_s: float, until: Callable[[], bool] = lambda: False) -> None:
    """Look, and have done what is decided, until interrupted."""
    while not until():
        wait = look_s
        try:
            if _is_to_do(project):
                wait = _have_done(project, look_s)
        except LapvqaError as error:  # a parameter that is being edited; it may be right again
            _say(f"{error.message}; looking again")
        time.sleep(wait)


def set_clock(project: Project, cron: str, zone: str | None) -> None:
    """Write the clock; times that the same clock has already asked at are not asked at again.

    ConfigError, rather than a clock in UTC, if no zone is given and the machine's has no name.
    """
    known, zone = clock.load(project), zone or clock.machine_timezone()
    if known is None or (known.cron, known.zone) != (cron, zone):
        clock.keep(project, Schedule(cron, zone, datetime.now(UTC).isoformat()))


def show(project: Project, *, as_json: bool, count: int = _SHOWN_TIMES) -> int:
    """Print the clock, its next times, what is wanted and what was decided last."""
    seen, decision = rounds.ask(project, situation.zoned_now(project))
    ended = minutes.rounds(project)[-count:]
    if as_json:
        return terminal.print_json({
            **_clock_as_json(project, count=count), "decision": decision.to_json(),
            "wanted": [cause.to_json() for cause in seen.causes], "rounds": ended,
        })  # fmt: skip
    console = terminal.console()
    for line in _described(project, count=count):
        console.print(line, markup=False, soft_wrap=True)
    console.print(f"now: {decision.said}", markup=False, soft_wrap=True)
    for cause in seen.causes:
        console.print(f"wanted: {wanted.in_words([cause])}, since {_minute(cause.first)}")
    for one in ended:
        console.print(
            f"{_minute(one['began'])}: {one['outcome']}: {one['why']}",
            markup=False, soft_wrap=True,
        )  # fmt: skip
    return 0


def times(project: Project, *, count: int, as_json: bool) -> int:
    """Print the next times of the clock, and that it asks at none of them while paused."""
    schedule = _required(project)
    if as_json:
        return terminal.print_json(_clock_as_json(project, count=count))
    console = terminal.console()
    for at in _coming(schedule, count):
        console.print(f"{at:%Y-%m-%d %H:%M %Z}", highlight=False)
    if pause.is_paused(project):
        console.print(pause.IN_WORDS, markup=False, soft_wrap=True)
    return 0


def deploy(project: Project, *, cron: str | None, zone: str | None) -> int:
    """Leave the looking to the workers of the configured Prefect server."""
    from tasks import prefect_deployment

    prefect_deployment.require_server(project)
    if cron is not None:
        set_clock(project, cron, zone)
    from flows.retraining import retraining

    name = prefect_deployment.deploy(project, retraining)
    terminal.console().print(
        f"{name}: each quarter of an hour it is decided what is to be done; work pool "
        f"{prefect_deployment.POOL}. A worker on a machine that sees {project.root}:\n"
        f"prefect worker start --pool {prefect_deployment.POOL}",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    for line in _described(project):
        terminal.console().print(line, markup=False, soft_wrap=True)
    return 0


def set_paused(project: Project, *, paused: bool) -> int:
    """Let nothing begin by itself, or go on; times that passed in a pause are not made up for.

    A deployment on the configured Prefect server follows.
    """
    was_paused = pause.is_paused(project)
    if paused:
        pause.pause(project)
    elif was_paused:
        pause.resume(project, datetime.now(UTC))
    _on_server(project, "set_paused", paused=paused)
    goes_on = "it goes on" if was_paused else "it was not paused"
    terminal.console().print(pause.IN_WORDS if paused else goes_on, markup=False, soft_wrap=True)
    return 0


def remove(project: Project) -> int:
    """Remove the clock, and the deployment; causes on record stay, and so does a pause."""
    if not _on_server(project, "remove"):
        _required(project)
    project.schedule.unlink(missing_ok=True)
    terminal.console().print("removed: the clock asks no more")
    return 0


def print_crontab(project: Project, *, cron: str | None, zone: str | None) -> int:
    """Keep the clock, if one is given, and print a line for `crontab -e` that looks at it."""
    if cron is not None:
        set_clock(project, cron, zone)
    project.log("cron").parent.mkdir(parents=True, exist_ok=True)  # or sh would run nothing
    sys.stdout.write(
        "# Asks each quarter of an hour whether anything is due: the clock, or another cause.\n"
        f"{_in_comments(project)}{timers.crontab_line(project)}\n"
    )
    return 0


def print_systemd(project: Project, *, cron: str | None, zone: str | None) -> int:
    """Keep the clock, if one is given, and print a service and a timer for systemd that look."""
    if cron is not None:
        set_clock(project, cron, zone)
    sys.stdout.write(timers.systemd_units(project) + _in_comments(project))
    return 0


def _in_comments(project: Project) -> str:
    return "".join(f"# {line}\n" for line in _described(project))


def _described(project: Project, *, count: int = _SHOWN_TIMES) -> Iterator[str]:
    schedule = clock.load(project)
    if schedule is None:
        yield "no clock (--cron makes one); other causes are looked for"
    else:
        shown = ", ".join(f"{at:%Y-%m-%d %H:%M}" for at in _coming(schedule, count))
        yield f"clock {schedule.cron!r}, next ({schedule.zone}): {shown}"
    if pause.is_paused(project):
        yield pause.IN_WORDS


def _coming(schedule: Schedule, count: int) -> list[datetime]:
    return clock.upcoming(schedule.cron, schedule.zone, datetime.now(UTC), count=count)


def _clock_as_json(project: Project, *, count: int) -> dict[str, Any]:
    schedule = clock.load(project)
    return {
        "paused": pause.is_paused(project),
        "clock": schedule and {
            "cron": schedule.cron, "zone": schedule.zone,
            "next": [at.isoformat() for at in _coming(schedule, count)],
        },
    }  # fmt: skip


def _is_to_do(project: Project) -> bool:
    """Decide, and put on record what is new about it."""
    now = situation.zoned_now(project)
    situation.tick(project, now)
    seen, decision = rounds.ask(project, now)
    if decision.answer is not Answer.NOTHING and not decision.acts and not seen.at_work:
        rule = load_params(project.params).retraining
        if minutes.record(project, decision, seen, rule, now):
            _say(decision.said)
    return decision.acts


def _have_done(project: Project, look_s: float) -> float:
    """Run `lapvqa retrain --due` as a child; return how long to wait afterwards."""
    code = child_process.run(
        timers.looks(),
        cwd=project.root, environment=dict(os.environ), on_line=_say,
    )  # fmt: skip
    if code in (0, EXIT_BUSY):
        return look_s
    _say(f"it ended with exit code {code}; what was wanted is wanted still")
    return max(look_s, _PAUSE_AFTER_FAILURE_S)


def _on_server(project: Project, what: str, **options: bool) -> bool:
    """Do something to this project's deployment, if a server is configured and has one."""
    if not load_machine(project).servers.prefect_api_url:
        return False
    from tasks import prefect_deployment

    prefect_deployment.require_server(project)
    done: bool = getattr(prefect_deployment, what)(project, **options)
    return done


def _required(project: Project) -> Schedule:
    schedule = clock.load(project)
    if schedule is None:
        raise ConfigError(
            "expected a clock of this project, found none",
            hint='make one: lapvqa schedule --cron "0 2 * * *"',
        )
    return schedule


def _minute(moment: str) -> str:
    """Return a moment of the record, in ISO form, as a time of this machine's zone."""
    at = datetime.fromisoformat(moment).astimezone(ZoneInfo(clock.local_timezone()))
    return f"{at:%Y-%m-%d %H:%M %Z}"


def _say(text: str) -> None:
    now = datetime.now(ZoneInfo(clock.local_timezone()))
    sys.stdout.write(f"{now:%Y-%m-%d %H:%M:%S} {text}\n")
    sys.stdout.flush()
