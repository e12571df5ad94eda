"""What tests of the intake share: a project with an empty archive, a receiver, a sender."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from jobs import make_job
from made_dicom import dicom_bytes, small_image, write_project
from pydicom import dcmread
from pynetdicom import AE, build_context
from ruamel.yaml import YAML

from lapvqa import arrivals
from lapvqa.dicom.parse import parse
from lapvqa.dicom.pixels import digest, read_cells
from lapvqa.intake.filing import Filing
from lapvqa.intake.inbox import Inbox, open_inbox
from lapvqa.intake.receive import Server
from lapvqa.intake.register import Register
from lapvqa.intake.watch import Watcher
from lapvqa.machine import Intake, ReportSources, load_machine
from lapvqa.project import Project

NAME = "RIS"
CALLED, CALLING = "WARD", "PACS1"
SETTINGS: dict[str, Any] = {
    "quiet_seconds": 0.0,
    "min_free_gb": 0.0,
    "receive": {"port": 0, "sources": {CALLED: {"callers": [CALLING, "ORTHANC", "STORESCU"]}}},
}


def dcmtk(program: str) -> str | None:
    """Return where dcmtk's program is: pynetdicom installs scripts of the same names."""
    for folder in os.environ["PATH"].split(os.pathsep):
        found = shutil.which(program, path=folder)
        if found and not Path(found).read_bytes().startswith(b"#!"):
            return found
    return None


needs_dcmtk = pytest.mark.skipif(
    dcmtk("storescu") is None, reason="dcmtk is not here (Debian: dcmtk)"
)


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
    server = Server(desk.inbox, receiver.receive, desk.said.append, root=desk.project.root)
    port = server.start()
    try:
        yield server, port
    finally:
        server.stop()


def send(
    files: Sequence[Path], port: int, *, called: str = CALLED, done: list[int] | None = None
) -> list[int]:
    """Send files as they are, each in its own transfer syntax; return the statuses.

    ``done`` gets each status as it comes.
    """
    return send_bytes([path.read_bytes() for path in files], port, called=called, done=done) or []


def send_bytes(
    files: Sequence[bytes],
    port: int,
    *,
    called: str = CALLED,
    calling: str = CALLING,
    done: list[int] | None = None,
) -> list[int] | None:
    """Send files; return the statuses, None if the association is refused."""
    sets = [dcmread(BytesIO(data)) for data in files]
    wanted = {(one.SOPClassUID, one.file_meta.TransferSyntaxUID) for one in sets}
    ae = AE(ae_title=calling)
    ae.requested_contexts = [build_context(*pair) for pair in sorted(wanted)]
    ae.acse_timeout = ae.dimse_timeout = 10
    association = ae.associate("127.0.0.1", port, ae_title=called)
    if not association.is_established:
        return None
    statuses = [] if done is None else done
    for one in sets:
        if not association.is_established:
            break
        statuses.append(association.send_c_store(one).get("Status", -1))
    if association.is_established:
        association.release()
    return statuses


def film(number: int, *, study: str = "1.2.3", accession: str = "A100", **others: Any) -> bytes:
    """A small radiograph of its own for each number."""
    named = {"SOPInstanceUID": f"1.2.3.{number}", "AccessionNumber": accession, **others}
    return dicom_bytes(small_image(number), bits=8, StudyInstanceUID=study, **named)


def look(desk: Desk, folder: Path, **options: Any) -> list[str]:
    """Take what is there; return the new events' kinds."""
    before = len(desk.events)
    watcher = Watcher(folder, NAME, desk.filing, ReportSources(), settled=0.0, **options)
    watcher.look()
    desk.filing.settle()
    return [event["event"] for event in desk.events[before:]]


def oru(
    text: str, *, accession: str = "A100", time: str = "202611291015", status: str = "F"
) -> str:
    return (
        f"MSH|^~\\&|RIS|H|||{time}||ORU^R01|1|P|2.5\rPID|1||4711||Doe^Jane\r"
        f"OBR|1||{accession}^RIS|||||||||||||||||||{time}|||{status}\r"
        f"OBX|1|TX|71020^CXR||{text}||||||{status}\r"
    )


def fhir(text: str, *, accession: str = "A100", status: str = "final", minute: int = 0) -> str:
    """A DiagnosticReport in JSON."""
    report = {
        "resourceType": "DiagnosticReport", "status": status, "conclusion": text,
        "identifier": [{"value": accession}], "issued": f"2026-11-29T10:{minute:02d}:00Z",
    }  # fmt: skip
    return json.dumps(report)


def pixels_of(files: Sequence[Path]) -> dict[str, str]:
    """Return by SOP Instance UID a digest of each film's size and decoded values.

    What says the same in the same bytes is decoded once: the values are made of nothing else.
    """
    found = {}
    for path in files:
        parsed = parse(path.read_bytes())
        header, dataset = parsed.header, parsed.dataset
        how = [dataset.get(name) for name in _HOW_PIXELS_ARE_READ]
        key = repr([header.transfer_syntax, parsed.pixel_vr, how])
        key += hashlib.sha256(parsed.pixel_data).hexdigest()
        if key not in _decoded:
            cells = read_cells(header, dataset, parsed.pixel_data, vr=parsed.pixel_vr)
            _decoded[key] = digest(*cells)
        found[header.instance_uid] = _decoded[key]
    return found


_HOW_PIXELS_ARE_READ = (
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "NumberOfFrames",
)  # fmt: skip
_decoded: dict[str, str] = {}


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Return once it holds; fail if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
