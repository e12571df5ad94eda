"""``lapvqa receive``: studies that others send by C-STORE, into the archive."""

from __future__ import annotations

from flows.commands import intake
from lapvqa.project import Project
from lapvqa.recorder import counted


def execute(project: Project) -> int:
    """Receive until interrupted; 0."""
    from lapvqa.intake.inbox import open_inbox
    from lapvqa.intake.receive import Server, serve

    job = intake.open_job(project, "receive")
    with open_inbox(job, "receive") as inbox, intake.stop_on_signals() as stopped:
        filing = intake.filing(project, inbox)
        receiver = job.machine.intake.receive
        server = Server(inbox, receiver, intake.say, root=project.root)

        def listening(port: int) -> None:
            titles = ", ".join(sorted(receiver.sources))
            how = " with TLS" if receiver.tls else ""
            intake.say(f"listening on {receiver.host} port {port}{how}, called as {titles}")

        serve(server, filing, stopped, listening=listening)
        counts, waiting = server.counts, sum(1 for _ in inbox.waiting())
        intake.say(
            f"stopped: {counted(counts['received'], 'file')} received, {counts['refused']} "
            f"refused; {counted(waiting, 'study')} left in the inbox for the next start"
        )
    return 0
