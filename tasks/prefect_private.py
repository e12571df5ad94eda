"""Every name of Prefect that its documentation does not promise, and nothing else of it.

An upgrade may move any of them: tests/house/test_private_names.py says which.
"""

from __future__ import annotations

import queue
from contextlib import AbstractContextManager, suppress
from typing import Any

NAMES: dict[str, tuple[str, ...] | None] = {
    "prefect._internal.plugins.collections:_collections": None,
    "prefect.context:FlowRunContext.get": (),
    "prefect.context:TagsContext": ("current_tags",),
    "prefect.context:refresh_global_settings_context": (),
    "prefect.events.worker:EventsWorker.instance": (),
    "prefect.events.worker:EventsWorker.wait_until_empty": ("self",),
    "prefect.events.worker:EventsWorker.drain_all": ("timeout",),
    "prefect.logging.handlers:APILogWorker.drain_all": ("timeout",),
    "prefect.logging.handlers:APILogWorker.instance": (),
    "prefect.server.api.server:API_ROUTERS": None,
    "prefect.server.api.server:create_app": ("ephemeral",),
    "prefect.server.services.task_run_recorder:consumer": ("flush_every",),
}
"""Where each lies -> the parameters that we pass; None: no call."""

_FLUSH_S = 0.2
_ASKED = {
    "/flows", "/flow_runs", "/task_runs", "/logs", "/artifacts", "/csrf-token", "/events", "/admin",
}  # fmt: skip
"""What a run asks its server for."""


def read_settings_again() -> None:
    """Let Prefect, which is imported already, read the environment again."""
    from prefect.context import refresh_global_settings_context

    refresh_global_settings_context()


def is_of_a_deployment() -> bool:
    """Tell whether the present flow run is a deployment's; ``prefect.runtime`` asks the server."""
    from prefect.context import FlowRunContext

    run = getattr(FlowRunContext.get(), "flow_run", None)
    return run is not None and run.deployment_id is not None


def without_tags() -> AbstractContextManager[Any]:
    """Return a context whose task runs have no tags: for each one they would ask for a slot."""
    from prefect.context import TagsContext

    return TagsContext(current_tags=set())


def server_app(*, for_one_run: bool) -> Any:
    """Return the server as an ASGI application.

    ``for_one_run``: without scheduler and pages, and without the blocks that other packages bring
    (prefect-dask: half a second). ``final`` would look for garbage, a third of a second.
    """
    from prefect._internal.plugins import collections
    from prefect.server.api import server
    from prefect.server.services import task_run_recorder

    if for_one_run:
        collections._collections = {}
    # FastAPI makes a router's routes when a request comes to it, found there or not.
    changed: Any = server
    changed.API_ROUTERS = sorted(server.API_ROUTERS, key=lambda one: one.prefix not in _ASKED)
    # Its setting is cut to whole seconds, and a run's end waits for the row of its last task.
    changed = task_run_recorder
    recording = changed.consumer
    changed.consumer = lambda **given: recording(**{**given, "flush_every": _FLUSH_S})
    return server.create_app(ephemeral=for_one_run)


def wait_for_events() -> None:
    """Wait until the server has been sent all events (task runs travel as such)."""
    from prefect.events.worker import EventsWorker

    EventsWorker.instance().wait_until_empty()


def drain_events(seconds: float) -> None:
    """Send what waits, and end the thread that sends it."""
    from prefect.events.worker import EventsWorker

    EventsWorker.drain_all(timeout=seconds)


def drain_logs(seconds: float) -> None:
    """Send the log lines that wait, and end the thread that sends them."""
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=seconds)


def forget_what_waits() -> None:
    """Drop events and log lines for a server that is gone: each would be tried for seconds."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for waiting in (EventsWorker.instance()._queue, APILogWorker.instance()._queue):
        with suppress(queue.Empty):
            while True:
                waiting.get_nowait()
                waiting.task_done()
