"""Whether anything may begin by itself: a mark of the project, with a clock or without one."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from lapvqa import storage
from lapvqa.project import Project
from lapvqa.retraining import clock

IN_WORDS = "paused: nothing begins by itself until `lapvqa schedule resume`"


def is_paused(project: Project) -> bool:
    """Tell whether nothing may begin by itself."""
    if project.paused.exists():
        return True
    # Of earlier versions, whose clock alone could be paused.
    clocked = project.schedule.exists()
    return clocked and bool(
        storage.read_json(project.schedule, made_by="schedule").get("paused", False)
    )


def pause(project: Project) -> None:
    """Let nothing begin by itself."""
    storage.write_json(project.paused, {"paused": "nothing begins by itself"})


def resume(project: Project, now: datetime) -> None:
    """Go on; times of the clock that passed in the pause are not made up for."""
    schedule = clock.load(project)
    if schedule is not None:
        clock.keep(project, replace(schedule, answered=now.isoformat()))
    project.paused.unlink(missing_ok=True)
