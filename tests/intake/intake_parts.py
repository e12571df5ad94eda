"""What tests of the intake share: a project with an empty archive, a receiver, a sender."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs import make_job
from made_dicom import write_project
from pynetdicom import AE, build_context
from ruamel.yaml import YAML

from lapvqa.intake import arrivals
from lapvqa.intake.arrivals import Register
from lapvqa.intake.filing import Filing
from lapvqa.intake.inbox import Inbox, open_inbox
from lapvqa.intake.receive import Server
from lapvqa.machine import Intake, load_machine
from lapvqa.project import Project

CALLED, CALLING = "WARD", "PACS1"
SETTINGS: dict[str, Any] = {
    "quiet_seconds": 0.0,
    "min_free_gb": 0.0,
    "receive": {"port": 0, "sources": {CALLED: {"callers": [CALLING, "ORTHANC", "STORESCU"]}}},
}


@dataclass
class Desk:
    """An archive, its inbox, the way from the one to the other, and what was said."""

    project: Project
    archive: Path
    inbox: Inbox
    filing: Filing
    said: list[str] = field(default_factory=list)

    @property
    def events(self) -> list[dict[str, Any]]:
        return list(arrivals.read(self.project.arrivals))

    @property
    def filed(self) -> list[Path]:
        return sorted(self.archive.glob("*/*/*.dcm"))


def make_project(root: Path, **settings: Any) -> Project:
    """A project whose archive is an empty folder; settings as in ``SETTINGS``."""
    archive = root / "archive"
    archive.mkdir(parents=True, exist_ok=True)
    project = write_project(root / "project", archive)
    (project.root / "dvc.yaml").write_text("stages: {}\n")
    values = YAML(typ="safe").load(project.local)
    with project.local.open("w") as file:
        YAML(typ="safe").dump({**values, "intake": {**SETTINGS, **settings}}, file)
    return project


@contextmanager
def open_desk(root: Path, command: str, **settings: Any) -> Iterator[Desk]:
    """The intake of a project, open."""
    project = make_project(root, **settings)
    job = make_job(project, load_machine(project))
    with open_inbox(job, command) as inbox:
        said: list[str] = []
        register = Register.load(project.arrivals)
        filing = Filing(project, inbox, said.append, register)
        filing.recover()
        yield Desk(project, inbox.archive, inbox, filing, said)


@contextmanager
def receiving(desk: Desk, **settings: Any) -> Iterator[tuple[Server, int]]:
    """A receiver for a desk, and its port."""
    receiver = Intake.model_validate({**SETTINGS, "receive": {**SETTINGS["receive"], **settings}})
    server = Server(desk.inbox, receiver.receive, desk.said.append)
    port = server.start()
    try:
        yield server, port
    finally:
        server.stop()


def send(
    files: Sequence[Path], port: int, *, called: str = CALLED, calling: str = CALLING
) -> list[int]:
    """Send files as they are, each in its own transfer syntax; return the statuses."""
    from pydicom import dcmread

    ae = AE(ae_title=calling)
    sets = [dcmread(path) for path in files]
    wanted = {(one.SOPClassUID, one.file_meta.TransferSyntaxUID) for one in sets}
    ae.requested_contexts = [build_context(*pair) for pair in sorted(wanted)]
    association = ae.associate("127.0.0.1", port, ae_title=called)
    if not association.is_established:
        return []
    statuses = [association.send_c_store(one).get("Status", -1) for one in sets]
    association.release()
    return statuses


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
