"""local.yaml: facts of this machine, git-ignored, that never change a number.

(Where an archive lies, and where in it the reports are, decides what is read; the inventory says so
to the stages.)

Absent file or key: the default. Every stage receives a ``Machine``.
"""

from __future__ import annotations

import codecs
import hashlib
import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from lapvqa.params import InventoryParams, Section, read_settings
from lapvqa.project import Project
from lapvqa.runtime import available_cores


class Paths(Section):
    """Folders that replace those of params.yaml on this machine."""

    source: str | None = None
    chexpert: str | None = None
    nih14: str | None = None
    ext_vqa: str | None = None
    diff_vqa: str | None = None
    vindr: str | None = None
    ms_cxr: str | None = None
    labels: str | None = None


class Servers(Section):
    """Addresses of servers; absent: embedded (SQLite under .lapvqa/)."""

    prefect_api_url: str | None = None
    mlflow_tracking_uri: str | None = None


class Execution(Section):
    """Where ingest reads files, here or on a Dask cluster's machines; how many stages at once."""

    engine: Literal["local", "dask"] = "local"
    dask_scheduler: str | None = None
    stages_at_once: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Independent stages (evaluations) that run side by side; auto: by cores and memory."""

    @model_validator(mode="after")
    def _has_scheduler(self) -> Execution:
        if self.engine == "dask" and not self.dask_scheduler:
            raise ValueError("engine dask needs dask_scheduler, such as tcp://10.0.0.1:8786")
        return self


class ReportSources(Section):
    """Where the reports of a plain tree of DICOM files are, if they are not found by themselves.

    It belongs to the archive as its folder does, so it stands beside paths.source; the inventory
    keeps it, and ingest runs again when it changes.
    """

    table: str | None = None
    """The table, relative to the source folder; the only one that is read then."""
    study_uid: str | None = None
    accession: str | None = None
    instance_uid: str | None = None
    path: str | None = None
    patient: str | None = None
    """Column of Patient IDs, which has to name the patient of the images; ``none``: has not to,
    as where its numbers are not those of the images."""
    text: list[str] = []
    """Columns with text; several are written one after the other, each under its heading."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    encoding: str | None = None
    """Of the table and of text files, as Python names it."""

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, name: str | None) -> str | None:
        if name is None:
            return None
        try:
            return codecs.lookup(name).name
        except LookupError:
            raise ValueError(f"no encoding is called {name!r}; try utf-8, cp1252") from None

    def key_columns(self) -> list[tuple[str, str]]:
        """Return kind and name of the columns that name the study."""
        columns = {
            "study": self.study_uid, "accession": self.accession, "instance": self.instance_uid,
            "path": self.path,
        }  # fmt: skip
        return [(kind, name) for kind, name in columns.items() if name]

    def digest(self) -> str:
        """Return what changes when one of the values does."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


Strategy = Literal["ddp", "fsdp"]


class Training(Section):
    """How many processes pretrain, each with a GPU of its own if there are any.

    ``rendezvous`` host:port is needed for more than one node; every node sees this folder.
    """

    processes: Annotated[int, Field(ge=1)] = 1
    nodes: Annotated[int, Field(ge=1)] = 1
    rendezvous: str | None = None
    strategy: Strategy = "ddp"
    restarts: Annotated[int, Field(ge=0)] = 3
    loader_threads: Annotated[int, Field(ge=0)] = 2

    @model_validator(mode="after")
    def _meets_somewhere(self) -> Training:
        if self.nodes > 1 and not self.rendezvous:
            raise ValueError("nodes above 1 need rendezvous, such as node0:29500")
        return self


SOURCE_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9_-]{0,15}")
SourceName = Annotated[str, Field(pattern=f"^{SOURCE_NAME.pattern}$")]
"""Name of a source of studies: a folder of the archive, and for C-STORE the called AE title."""
AeTitle = Annotated[
    str, Field(pattern=r"^[\x21-\x5b\x5d-\x7e]([\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?$")
]
_LOOPBACK = ("127.0.0.0/8", "::1/128")
_HOURS = "^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]$"


class Sender(Section):
    """Who may send under one called AE title."""

    callers: Annotated[list[AeTitle], Field(min_length=1)]
    """Calling AE titles."""
    addresses: Annotated[list[str], Field(min_length=1)] = list(_LOOPBACK)
    """Addresses or networks, such as 10.1.2.3 or 10.1.2.0/24."""

    @field_validator("addresses")
    @classmethod
    def _are_networks(cls, addresses: list[str]) -> list[str]:
        for address in addresses:
            try:
                ipaddress.ip_network(address)
            except ValueError:
                raise ValueError(
                    f"{address!r} is no address or network; try 10.1.2.3 or 10.1.2.0/24"
                ) from None
        return addresses


class Tls(Section):
    """PEM files; ``authorities``: whose certificates senders have to show; without, none are."""

    certificate: str
    key: str
    authorities: str | None = None


class Receiver(Section):
    """Where `lapvqa receive` listens, and for whom: a source for each called AE title."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 11112
    tls: Tls | None = None
    """Without, what is sent can be read on its way."""
    sources: dict[SourceName, Sender] = {}
    associations: Annotated[int, Field(ge=1, le=100)] = 10
    timeout_seconds: Annotated[float, Field(gt=0)] = 30.0
    """A sender that is silent for so long, within an association or a message, is let go."""


class Pacs(Section):
    """A DICOMweb server that `lapvqa pull` asks."""

    url: Annotated[str, Field(pattern="^https?://")]
    modalities: Annotated[list[str], Field(min_length=1)] = ["CR", "DX"]
    per_second: Annotated[float, Field(gt=0)] = 5.0
    """Requests: the server serves a hospital."""
    hours: Annotated[str, Field(pattern=_HOURS)] | None = None
    """Such as 22:00-06:00, in local time; outside nothing is asked."""
    token_file: str | None = None
    """File with a bearer token. A name and password stand in ~/.netrc."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 60.0


class Intake(Section):
    """How studies come from the hospital into the archive: docs/intake.md."""

    quiet_seconds: Annotated[float, Field(ge=0)] = 60.0
    """A study is complete when nothing has come for so long."""
    patience_seconds: Annotated[float, Field(ge=0)] = 3600.0
    """How long a study is waited for that says it has more files."""
    min_free_gb: Annotated[float, Field(ge=0)] = 5.0
    """Nothing is taken in beyond."""
    receive: Receiver = Receiver()
    pull: dict[SourceName, Pacs] = {}


class Machine(Section):
    """Machine facts."""

    paths: Paths = Paths()
    servers: Servers = Servers()
    execution: Execution = Execution()
    training: Training = Training()
    reports: ReportSources = ReportSources()
    intake: Intake = Intake()
    workers: int = Field(default_factory=available_cores, ge=1)
    device: str = "auto"
    deid_key_file: str | None = None
    signing_key_file: str | None = None

    def folder(self, name: str, params: InventoryParams, project: Project) -> Path:
        """Return the input folder ``name``, one of ``inventory.NAMES``, absolute."""
        chosen = getattr(self.paths, name) or getattr(params, name)
        return (project.root / Path(chosen).expanduser()).resolve()


def load_machine(project: Project) -> Machine:
    """Read local.yaml if it is there; ConfigError lists every fault."""
    if not project.local.exists():
        return Machine()
    return read_settings(Machine, project.local)
