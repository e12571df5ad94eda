"""The flow ``retraining`` as a deployment on a Prefect server that others keep, for its workers.

Its name carries the project, so that any number of projects share a server; its parameter is the
project's folder, which the worker's machine must see. One run at a time and others cancelled is a
belt: that a round is at work once, and that no cause is lost, is the lease's and the record's.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from lapvqa.errors import ConfigError
from lapvqa.machine import load_machine
from lapvqa.project import Project
from tasks.prefect_server import retraining_tag

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.responses import DeploymentResponse

POOL = "lapvqa"
FLOW = "retraining"
_EVERY_S = 900


def name_of(project: Project) -> str:
    """Return the deployment's name: the folder's, and a digest of machine and place."""
    return f"{project.root.name}-{retraining_tag(project).rpartition('-')[2]}"


def deploy(project: Project, flow: Flow[..., Any]) -> str:
    """Make or renew the deployment of ``flow`` and its work pool; return its full name.

    It asks every quarter of an hour, as a timer would: what is to be done is decided by the run.
    Raises ConfigError where no server is configured.
    """
    require_server(project)
    from datetime import timedelta

    from prefect import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.exceptions import ObjectNotFound
    from prefect.schedules import Interval
    from prefect.types.entrypoint import EntrypointType

    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(POOL)
        except ObjectNotFound:
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    made: Any = flow.to_deployment(
        name=name_of(project), work_pool_name=POOL, entrypoint_type=EntrypointType.MODULE_PATH,
        schedule=Interval(timedelta(seconds=_EVERY_S)), parameters={"root": str(project.root)},
        tags=[retraining_tag(project)], job_variables={"working_dir": str(project.root)},
        concurrency_limit=ConcurrencyLimitConfig(
            limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW
        ),
    )  # fmt: skip
    made.apply()
    return f"{FLOW}/{name_of(project)}"


def find(project: Project) -> DeploymentResponse | None:
    """Return this project's deployment, None if there is none; the server must answer."""
    from prefect import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            return client.read_deployment_by_name(f"{FLOW}/{name_of(project)}")
        except ObjectNotFound:
            return None


def set_paused(project: Project, *, paused: bool) -> bool:
    """Pause the deployment, or let it go on; False if there is none."""
    from prefect import get_client

    found = find(project)
    if found is not None:
        with get_client(sync_client=True) as client:
            client.pause_deployment(found.id) if paused else client.resume_deployment(found.id)
    return found is not None


def remove(project: Project) -> bool:
    """Delete the deployment; False if there was none."""
    from prefect import get_client

    found = find(project)
    if found is not None:
        with get_client(sync_client=True) as client:
            client.delete_deployment(found.id)
    return found is not None


def require_server(project: Project) -> str:
    """Return the address of the configured server, and let Prefect know it; else ConfigError."""
    url = load_machine(project).servers.prefect_api_url or os.environ.get("PREFECT_API_URL", "")
    if not url:
        raise ConfigError(
            "expected a Prefect server for the deployment, found none configured",
            hint="set servers.prefect_api_url in local.yaml; without a server: `lapvqa schedule`",
        )
    os.environ["PREFECT_API_URL"] = url.rstrip("/")
    return url
