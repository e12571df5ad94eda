"""``lapvqa pull``: what a DICOMweb server has and the archive lacks."""

from __future__ import annotations

from datetime import date, datetime, timedelta

from flows.commands import intake
from lapvqa.errors import EXIT_BAD_DATA, ConfigError, no_such
from lapvqa.project import Project
from lapvqa.recorder import counted


def execute(
    project: Project, source: str, *, since: str | None, until: str | None, days: int, now: bool
) -> int:
    """Pull the studies of some days; 0, or 3 if the server did not give all files."""
    from lapvqa.intake.dicomweb import Server
    from lapvqa.intake.inbox import open_inbox
    from lapvqa.intake.pull import Puller, is_within

    job = intake.open_job(project, "pull")
    servers = job.machine.intake.pull
    if source not in servers:
        error = no_such("server in local.yaml called", source, sorted(servers))
        error.hint += "; one more: intake: {pull: {NAME: {url: https://pacs.example/dicom-web}}}"
        raise error
    settings = servers[source]
    last = _day(until) if until else date.today()
    first = _day(since) if since else last - timedelta(days=days - 1)
    if first > last:
        raise ConfigError(
            f"expected a first day before the last, found {first} to {last}",
            hint="--since is the first day, --until the last one, by default today",
        )
    hours = None if now else settings.hours
    with open_inbox(job, f"pull-{source}") as inbox, intake.stop_on_signals() as stopped:
        if not is_within(hours, datetime.now()):
            intake.say(f"{source}: not within {hours}; --now asks all the same")
            return 0
        server = Server(source, settings, project.root)
        puller = Puller(
            server,
            intake.filing(project, inbox),
            lambda: not stopped() and is_within(hours, datetime.now()),
        )
        done = puller.pull(first, last)
    erased = f", {done.erased} of erased patients not asked for" if done.erased else ""
    intake.say(
        f"{source}: {first} to {last}: {counted(done.studies, 'study')} filed, "
        f"{counted(done.files, 'file')} fetched, {counted(done.known, 'study')} here already"
        f"{erased}, {counted(done.failed, 'file')} not given"
        + ("; ended before all was asked for, the next pull goes on" if done.left else "")
    )
    return EXIT_BAD_DATA if done.failed else 0


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"expected a date such as 2026-11-29, found {text!r}", hint="year-month-day"
        ) from None
