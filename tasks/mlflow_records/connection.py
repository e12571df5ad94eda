"""The connection to MLflow: its address, and whether it answers, told in seconds, not minutes."""

from __future__ import annotations

import http.client
import importlib.util
import logging
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lapvqa.errors import EXIT_USER, LapvqaError
from lapvqa.machine import Machine
from lapvqa.project import Project
from tasks.mlflow_records.relocation import EXPERIMENT, relocate

if TYPE_CHECKING:
    from mlflow import MlflowClient

_PROBE_S = 3.0
_KIND = "mlflow.experimentKind"
MOVE = "move the clone, or its .venv, to a path without %, then `make setup`"
_CREDENTIALS = re.compile(r"(?<=://)[^\s/@]*(:[^\s@]*)?@")


class RecordsUnavailableError(LapvqaError):
    """MLflow does not answer."""

    exit_code = EXIT_USER


@dataclass(frozen=True)
class Store:
    """An MLflow store that answers."""

    client: MlflowClient
    experiment: str
    uri: str


def tracking_uri(project: Project, machine: Machine) -> str:
    """Return MLflow's address: local.yaml, else MLFLOW_TRACKING_URI, else the embedded store."""
    served = machine.servers.mlflow_tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    return served or embedded_uri(project)


def embedded_uri(project: Project) -> str:
    """Return the address of the store under .lapvqa/."""
    return f"sqlite:///{project.mlflow_db}"


def public(text: str) -> str:
    """Return an address, or an error's text, without user names and passwords in addresses."""
    return _CREDENTIALS.sub("", text)


def connect(project: Project, machine: Machine) -> Store:
    """Import MLflow (3 s) and reach its store; RecordsUnavailableError if it does not answer."""
    uri = tracking_uri(project, machine)
    probe(uri)
    quieten()
    from mlflow import MlflowClient

    project.state.mkdir(parents=True, exist_ok=True)
    try:
        if uri == embedded_uri(project):
            relocate(project)
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is not None:
            return Store(client, str(experiment.experiment_id), uri)
        files = project.mlflow_artifacts.as_uri() if uri == embedded_uri(project) else None
        # Its own page would be one for language models otherwise.
        made = client.create_experiment(EXPERIMENT, files, {_KIND: "custom_model_development"})
        return Store(client, made, uri)
    except Exception as error:  # noqa: BLE001 - whatever MLflow raises
        # `from None`: the cause's own text may carry the password of the address.
        raise RecordsUnavailableError(
            f"expected MLflow at {public(uri)}, found: {public(str(error))}",
            hint=MOVE if cannot_migrate() else "see servers in local.yaml",
        ) from None


def cannot_migrate() -> bool:
    """Tell whether MLflow lies where its migrations do not run: alembic reads a % as its own."""
    found = importlib.util.find_spec("mlflow")
    return found is not None and "%" in str(found.origin)


def probe(uri: str) -> None:
    """Ask a server for its health before MLflow's client does, which would wait much longer."""
    if not uri.startswith(("http://", "https://")):
        return
    address = public(uri)  # urllib takes user:password@host for a host's name
    try:
        urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=_PROBE_S).close()
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        raise RecordsUnavailableError(
            f"expected an MLflow server at {address}, found: {error}",
            hint="start it, or correct servers.mlflow_tracking_uri in local.yaml",
        ) from error


@contextmanager
def answering() -> Iterator[None]:
    """Tell of an MLflow that fails within the block, whatever it raises, as of one that is down."""
    try:
        yield
    except LapvqaError:
        raise
    except Exception as error:
        from mlflow.exceptions import MlflowException
        from requests import RequestException

        if not isinstance(error, MlflowException | RequestException):
            raise
        said = public(str(error)).partition("\n")[0]
        raise RecordsUnavailableError(
            f"MLflow does not answer any more: {said}",
            hint="the same again, once it answers, goes on from here",
        ) from None


def quieten() -> None:
    """Set what MLflow reads as it is imported: no telemetry, no chatter, short waits.

    No retries of its own either: a request that was answered too late and sent again makes a
    second run, and we try again ourselves.
    """
    os.environ["DO_NOT_TRACK"] = "true"  # MLflow does not understand "1"
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    logging.getLogger("alembic").setLevel(logging.ERROR)
