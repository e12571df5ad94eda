"""``lapvqa open``: the report page, MLflow's, Prefect's, DVC's plots, on this machine alone.

The embedded stores have no server of their own between runs: one is started on loopback, with every
telemetry switched off, and ends with the command. A served one is only named.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager

from flows.commands import terminal
from lapvqa import extras, storage
from lapvqa.errors import ConfigError, MissingArtifactError, no_such
from lapvqa.lineage import ledger, runs
from lapvqa.machine import Machine, load_machine
from lapvqa.project import Project

PLACES = ("report", "mlflow", "prefect", "plots")
_START_S = 120.0


def execute(project: Project, place: str, *, browser: bool) -> int:
    """Say the address and open it; stay until interrupted where a server had to be started."""
    machine = load_machine(project)
    if place == "report":
        if not project.report_page.exists():
            raise MissingArtifactError(
                "expected reports/index.html, found nothing",
                hint="run `lapvqa run`, or `lapvqa run --stage report`",
            )
        return _show(project.report_page.resolve().as_uri(), browser)
    if place == "mlflow":
        return _mlflow(project, machine, browser)
    if place == "prefect":
        return _prefect(project, browser)
    if place == "plots":
        return _plots(project, browser)
    raise no_such("page", place, PLACES)


def _mlflow(project: Project, machine: Machine, browser: bool) -> int:
    from tasks.mlflow_records import view
    from tasks.mlflow_records.connection import connect, embedded_uri, public, tracking_uri

    uri = tracking_uri(project, machine)
    if uri != embedded_uri(project):
        return _show(public(uri), browser)
    if not project.mlflow_db.exists():
        raise MissingArtifactError("expected records of a run, found none", hint="lapvqa run")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--workers", "1",
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    calm = {"DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
    server = subprocess.Popen(
        command, cwd=project.root, env={**os.environ, **calm},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        with _starting("MLflow"):
            table = view.link(connect(project, machine))
            _wait(f"http://127.0.0.1:{port}/health", server)
        _show(f"http://127.0.0.1:{port}{table}", browser)
        return _stay()
    finally:
        _end(server)


def _plots(project: Project, browser: bool) -> int:
    """Let DVC draw its plots into dvc_plots/, with the drawing code inside: offline, too."""
    template = project.state / "plots.html"
    storage.write_bytes(template, _plots_template().encode())
    drawn = subprocess.run(
        [sys.executable, "-m", "dvc", "plots", "show", "--html-template", str(template),
         "--out", "dvc_plots"],
        cwd=project.root, env={**os.environ, "DVC_NO_ANALYTICS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    page = project.root / "dvc_plots" / "index.html"
    if drawn.returncode or not page.exists():
        raise MissingArtifactError(
            f"expected DVC to draw its plots, found: {drawn.stderr.strip() or 'none'}",
            hint="run `lapvqa run` first",
        )
    return _show(page.resolve().as_uri(), browser)


def _plots_template() -> str:
    """Return DVC's page with vega inside, which DVC's own asks a CDN for."""
    vl_convert = extras.optional(
        "vl_convert", needed_for="`lapvqa open plots`",
        instead="look at the figures in reports/index.html",
    )  # fmt: skip
    # A "</script" inside would end it.
    vega = vl_convert.javascript_bundle().replace("</script", "<\\/script")
    return (
        '<!doctype html>\n<html><head><meta charset="utf-8"><title>DVC plots</title>{refresh_tag}'
        f"<script>{vega}</script></head>\n<body>{{plot_divs}}</body></html>\n"
    )


def _prefect(project: Project, browser: bool) -> int:
    from tasks.prefect_server import start_server_early

    server = start_server_early(project, services="pages")  # that of a run serves no pages
    try:
        if server.process is None:
            return _show(server.url.removesuffix("/api"), browser)
        with _starting("Prefect"):
            server.wait()
        _show(server.url.removesuffix("/api") + last_flow_run(project), browser)
        return _stay()
    finally:
        server.stop()


def last_flow_run(project: Project) -> str:
    """Return where the last run stands on Prefect's pages; empty if the ledger knows of none."""
    for entry in reversed(ledger.entries(project)):
        run = runs.of_entry(entry)
        if run is not None and run.prefect_flow_run:
            return f"/runs/flow-run/{run.prefect_flow_run}"
    return ""


def _show(address: str, browser: bool) -> int:
    terminal.console().print(address, markup=False, soft_wrap=True)
    if browser:
        webbrowser.open(address)
    return 0


def _stay() -> int:
    """Wait for Ctrl-C or SIGTERM, however this process was started."""
    terminal.console().print("until Ctrl-C")
    sys.stdout.flush()
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        return 0


@contextmanager
def _starting(server: str) -> Iterator[None]:
    """Say that a server starts; and, if that is interrupted, that nothing had begun."""
    console = terminal.console()
    console.print(f"{server}'s server starts, which takes some seconds; Ctrl-C ends it")
    sys.stdout.flush()
    try:
        yield
    except KeyboardInterrupt:
        console.print(f"{server}'s server had not come up yet; nothing is left of it")
        raise


def _wait(health: str, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(health, timeout=2).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    raise ConfigError(
        "expected MLflow's page to come up, found that it did not", hint="see `lapvqa doctor`"
    )


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server and the workers it has started: they are a process group."""
    try:
        os.killpg(server.pid, 15)
        server.wait(timeout=10)
    except ProcessLookupError:
        server.wait()
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, 9)
        server.wait()
