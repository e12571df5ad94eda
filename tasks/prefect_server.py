"""The Prefect server that records a run: our own by default, somebody else's by configuration.

Ours is a child process with its database under .lapvqa/prefect. It is started before Prefect is
imported (the two take seconds and overlap), dies with this process, and listens on 127.0.0.1. If it
dies first it is started again on the same socket, which stays open here: calls made meanwhile wait.
Served mode (servers.prefect_api_url in local.yaml, or PREFECT_API_URL) changes only the URL.
The child is this module: ``python -m tasks.prefect_server PARENT SOCKET SERVICES``. It listens on a
socket that its parent bound, so no other process can take the port meanwhile. SERVICES: ``run``
for one flow run, ``pages`` with the pages too (`lapvqa open prefect`).
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lapvqa.errors import LapvqaError
from lapvqa.machine import load_machine
from lapvqa.project import Project
from lapvqa.runtime import die_with_parent, importing

_START_S = 180.0  # the very first start migrates a new database, up to half a minute on slow disks
_PROBE_S = 3.0
_SETTLE_S = 20.0
_MAX_RESTARTS = 3
_UNFINISHED = ["SCHEDULED", "PENDING", "RUNNING", "CANCELLING", "PAUSED"]

_CALM = {
    # Nothing leaves the machine, nothing but our own lines on the console; run logs are stored.
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    # The second pages have a reader's browser ask amplitude.com, analytics switched off or not.
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    # Prefect must never start a server of its own beside ours.
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
    # One row per transaction would lag a minute behind; an interval below 1 spins the processor.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_UI_API_URL": "/api",
    # A server that died holds a call up for seconds, not minutes; its restart takes less than that.
    "PREFECT_CLIENT_MAX_RETRIES": "2",
    "PREFECT_API_REQUEST_TIMEOUT": "20",
}


class ServerUnavailableError(LapvqaError):
    """The embedded Prefect server did not start."""


@dataclass
class Server:
    """A Prefect server; ``process`` and ``listener`` are None in served mode."""

    url: str
    home: Path
    services: str
    process: subprocess.Popen[bytes] | None = None
    note: str = ""
    """Something the person should know, such as a served one that does not answer."""
    listener: socket.socket | None = None
    restarts: int = 0
    _over: threading.Event = field(default_factory=threading.Event)
    _watcher: threading.Thread | None = None

    def describe(self) -> str:
        """Say which mode this is and where the history lies."""
        if self.process is None:
            return f"Prefect: served, {self.url}"
        why = f" ({self.note})" if self.note else ""
        return f"Prefect: embedded{why}, history in {self.home.parent.name}/{self.home.name}"

    def wait(self) -> None:
        """Return when the server answers; ServerUnavailableError if it does not."""
        end = time.monotonic() + _START_S
        while not _answers(self.url):
            ended = self.process is not None and self.process.poll() is not None
            if ended or time.monotonic() > end:
                raise ServerUnavailableError(
                    f"expected the embedded Prefect server to start, found: {_tail(self.home)}",
                    hint=f"see {self.home / 'server.log'}; free disk space, or remove that folder",
                )
            time.sleep(0.05)
        if self.process is not None and self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="prefect server", daemon=True)
            self._watcher.start()

    def answers(self) -> bool:
        """Return whether it answers; one that is being started again is waited for."""
        end = time.monotonic() + _START_S
        while not (answering := _answers(self.url)):
            if self.listener is None or self.listener.fileno() < 0 or time.monotonic() > end:
                break
            time.sleep(0.2)
        return answering

    def stop(self) -> None:
        """Stop our own server; what it has answered for is on disk."""
        self._over.set()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.listener is not None:
            self.listener.close()

    def _watch(self) -> None:
        """Start our own server again when it dies, a few times.

        The child dies with the thread that starts it, so this one lives as long as the process.
        """
        while self.process is not None and self.listener is not None:
            self.process.wait()
            if self._over.is_set():
                return
            if self.restarts == _MAX_RESTARTS:
                self.listener.close()  # from now on calls are refused, and do not wait
                return
            self.restarts += 1
            self.process = _spawn(self.home, self.listener, self.services)


_started: dict[Path, Server] = {}
_ours: set[str] = set()


def start_server_early(project: Project, *, services: str = "run") -> Server:
    """Start the project's Prefect server without waiting for it, once per process.

    Sets what Prefect reads on import, so call it before anything imports Prefect; call
    ``Server.wait`` before the first flow. It ends with this process.
    """
    root = project.root.resolve()
    known = _started.get(root)
    if known is not None and known.services == services:
        return known
    for other in _started.values():
        _leave(other)
    _started.clear()
    server = _server(project, services)
    os.environ |= {**_CALM, "PREFECT_API_URL": server.url}
    if server.process is not None:
        os.environ["PREFECT_HOME"] = str(server.home)
    if "prefect" in sys.modules:
        from tasks import prefect_private

        prefect_private.read_settings_again()
    _started[root] = server
    return server


def forget_address(server: Server) -> None:
    """Take our own server's address out of the environment, where it would pass for a served one.

    Prefect has read it by then.
    """
    if server.process is not None and os.environ.get("PREFECT_API_URL") == server.url:
        del os.environ["PREFECT_API_URL"]


def project_tag(project: Project) -> str:
    """Return the tag of this project's flow runs: machine and folder, without their names."""
    place = f"{os.uname().nodename}:{project.root}"
    return f"project-{hashlib.sha256(place.encode()).hexdigest()[:12]}"


def retraining_tag(project: Project) -> str:
    """Return the tag of this project's runs of the flow ``retraining``, which hold other runs."""
    return project_tag(project).replace("project-", "retraining-")


def settle(server: Server, flow_run: str, *, task_runs: int) -> bool:
    """Wait until the server has stored the flow run's logs and its ``task_runs`` as finished.

    Task runs travel as events; a server that stops at once would lose them or leave them RUNNING.
    Return False if the time runs out, or the server is gone.
    """
    from tasks import prefect_private

    if not server.answers():
        prefect_private.forget_what_waits()
        return False
    _within(prefect_private.wait_for_events, _SETTLE_S)
    prefect_private.drain_logs(_SETTLE_S)
    if server.process is None:  # it lives on and stores them in its own time
        return True
    end = time.monotonic() + _SETTLE_S
    mine = {"flow_runs": {"id": {"any_": [flow_run]}}}
    unfinished = {**mine, "task_runs": {"state": {"type": {"any_": _UNFINISHED}}}}
    while time.monotonic() < end:
        try:
            if _count(server, mine) >= task_runs and _count(server, unfinished) == 0:
                return True
        except OSError:  # it has just died, or died and comes up again
            time.sleep(1.0)
        time.sleep(0.1)
    return False


def _server(project: Project, services: str) -> Server:
    """Return the configured server if it answers, else start our own."""
    configured = load_machine(project).servers.prefect_api_url
    url = (configured or os.environ.get("PREFECT_API_URL", "")).rstrip("/")
    if url in _ours:  # an earlier server of this process
        url = ""
    if url and _answers(url):
        return Server(url=url, home=project.prefect_home, services=services)
    server = _embedded(project.prefect_home, services=services)
    _ours.add(server.url)
    if url:
        server.note = f"the Prefect server at {url} does not answer"
    return server


def _embedded(home: Path, *, services: str) -> Server:
    home.mkdir(parents=True, exist_ok=True)
    (home / "server.log").write_bytes(b"")
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    process = _spawn(home, listener, services)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
    server = Server(url=url, home=home, services=services, process=process, listener=listener)
    atexit.register(server.stop)
    return server


def _spawn(home: Path, listener: socket.socket, services: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **_CALM, "PREFECT_HOME": str(home)}
    environment.pop("PREFECT_API_URL", None)
    with (home / "server.log").open("ab") as log:
        return subprocess.Popen(
            [
                sys.executable, "-m", "tasks.prefect_server",
                str(os.getpid()), str(listener.fileno()), services,
            ],
            cwd=home.parents[1],  # the project's folder
            env=environment,
            pass_fds=(listener.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for us; the server must outlive our last words
        )  # fmt: skip


def _leave(server: Server) -> None:
    """Let go of a server in favour of another project's, in the same process."""
    if "prefect" in sys.modules:
        from tasks import prefect_private

        prefect_private.drain_events(_SETTLE_S)
        prefect_private.drain_logs(_SETTLE_S)
    server.stop()


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/health", timeout=_PROBE_S).close()
    except (urllib.error.URLError, OSError):
        return False
    return True


def _count(server: Server, wanted: dict[str, Any]) -> int:
    request = urllib.request.Request(
        f"{server.url}/task_runs/count",
        data=json.dumps(wanted).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=_SETTLE_S) as answer:
        return int(json.load(answer))


def _within(call: Callable[[], Any], seconds: float) -> None:
    """Call, and go on after ``seconds`` even if it has not returned."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(max(seconds, 0))


def _tail(home: Path) -> str:
    lines = (home / "server.log").read_text(errors="replace").strip().splitlines()
    return " / ".join(lines[-3:]) or "no answer, and nothing in its log"


def main(arguments: list[str]) -> int:
    """Serve until killed, or until the parent dies."""
    parent, descriptor, services = int(arguments[0]), int(arguments[1]), arguments[2]
    die_with_parent(parent)
    with importing():
        import uvicorn

        from tasks import prefect_private

        app = prefect_private.server_app(for_one_run=services == "run")
    config = uvicorn.Config(app, log_level="error", lifespan="on")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
