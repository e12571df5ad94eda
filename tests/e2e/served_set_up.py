"""The services of docker/compose.yaml as plain processes: their commands, settings and scripts.

Only what the machine lacks is put in: PostgreSQL is the one that is installed, the S3 storage is
moto's server, each address is one of this machine's.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from others_at_work import free_port
from ruamel.yaml import YAML

BIN = Path(sys.executable).parent
NAMES = ("postgres", "s3", "prefect", "mlflow", "worker")
_PORTS = {"postgres": 5432, "s3": 8333, "prefect": 4200, "mlflow": 5000, "worker": 8080}
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
_WAIT_S = 200.0
_DOOR = """
import asyncio, sys
async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()
async def serve(reader, writer):
    try:
        inner = await asyncio.open_connection("127.0.0.1", int(sys.argv[2]))
    except OSError:
        writer.close()
        return
    await asyncio.gather(copy(reader, inner[1]), copy(inner[0], writer))
async def main():
    async with await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1])) as server:
        await server.serve_forever()
asyncio.run(main())
"""
"""A forwarder from one port of this machine to another."""


class SetUp:
    """The services, each of which can be killed and started again."""

    def __init__(self, repository: Path, folder: Path, secrets: dict[str, str]) -> None:
        self.repository, self.folder, self.secrets = repository, folder, secrets
        self.services = YAML(typ="safe").load(repository / "docker/compose.yaml")["services"]
        self.ports = {name: free_port() for name in _PORTS}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._storage: subprocess.Popen[bytes] | None = None
        self._cluster: Path | None = None

    def environment(self, name: str) -> dict[str, str]:
        """Return the settings that compose gives a service, over what a process needs here."""
        given = self.services[name].get("environment", {})
        kept = ("HOME", "LANG", "TMPDIR", "PYTHONPATH", "OMP_NUM_THREADS")
        base = {
            key: value for key, value in os.environ.items()
            if key in kept or key.startswith("OPENBLAS_")  # by which numpy rounds
        }  # fmt: skip
        base |= {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}
        return base | {key: self.here(str(value)) for key, value in given.items()}

    def here(self, text: str) -> str:
        """Return a value of the file with its variables, addresses and folders of this machine."""
        text = _VARIABLE.sub(self._value, text)
        for name, port in _PORTS.items():
            text = text.replace(f"{name}:{port}", f"127.0.0.1:{self.ports[name]}")
        if text == str(_PORTS["worker"]):
            return str(self.ports["worker"])
        return text.replace("/var/lib/prefect", str(self.folder / "prefect"))

    def _value(self, found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        if name in self.secrets:
            return self.secrets[name]
        assert kind == "-", f"compose needs {name}, which make_secrets.py does not write"
        return str(rest)

    def start(self, name: str, *, cwd: Path | None = None) -> None:
        """Start a service and wait until its health check would pass."""
        process = self._start_postgres() if name == "postgres" else self._start(name, cwd)
        self._processes[name] = process
        end = time.monotonic() + _WAIT_S
        while not self.is_healthy(name):
            assert process.poll() is None, f"{name} ended: {self.log(name)}"
            assert time.monotonic() < end, f"{name} does not answer: {self.log(name)}"
            time.sleep(0.1)

    def _start(self, name: str, cwd: Path | None) -> subprocess.Popen[bytes]:
        command = self._storage_command() if name == "s3" else self.command(name)
        place = {"PYTHONPATH": str(cwd)} if cwd else {}
        return self._run(name, command, {**self.environment(name), **place}, cwd)

    def _run(
        self, name: str, command: list[str], environment: dict[str, str], cwd: Path | None = None
    ) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command, env=environment, cwd=cwd or self.repository,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _storage_command(self) -> list[str]:
        """Return a door to moto's server, which keeps all in memory: the door is what is killed."""
        if self._storage is None:
            port = str(free_port())
            moto = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port]
            self._storage = self._run("s3", moto, self.environment("s3"))
            self._storage_port = port
        return [sys.executable, "-c", _DOOR, str(self.ports["s3"]), self._storage_port]

    def command(self, name: str) -> list[str]:
        """Return what compose runs, on this machine's port and on loopback alone."""
        service: dict[str, Any] = self.services[name]
        words = [
            str(word) for word in [*service.get("entrypoint", []), *service.get("command", [])]
        ]
        port = _PORTS.get(name)
        return [
            str(self.ports[name]) if word == str(port)
            else "127.0.0.1" if word == "0.0.0.0"
            else self.here(word)
            for word in words
        ]  # fmt: skip

    def once(self, name: str) -> None:
        """Run a service that ends by itself."""
        subprocess.run(
            self.command(name), env=self.environment(name), cwd=self.repository, check=True
        )

    def _start_postgres(self) -> subprocess.Popen[bytes]:
        is_new = self._cluster is None
        if self._cluster is None:
            self._cluster = self._make_cluster()
        with (self.folder / "postgres.log").open("ab") as log:
            process = subprocess.Popen(
                [
                    *_as_postgres(), str(_programs() / "postgres"), "-D",
                    str(self._cluster / "data"), "-p", str(self.ports["postgres"]),
                    "-h", "127.0.0.1", "-k", "", "-c", "logging_collector=off",
                ],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        if is_new:
            self._processes["postgres"] = process
            while not self.is_healthy("postgres"):
                assert process.poll() is None, self.log("postgres")
                time.sleep(0.1)
            where = {"PGHOST": "127.0.0.1", "PGPORT": str(self.ports["postgres"])}
            script = self.repository / "docker/make_databases.sh"
            subprocess.run(
                ["sh", str(script)], env={**self.environment("postgres"), **where}, check=True
            )
        return process

    def _make_cluster(self) -> Path:
        """Do what the image does on an empty volume.

        Not below pytest's folder, which each run of pytest closes to all users but its own.
        """
        folder = Path(tempfile.mkdtemp(prefix="lapvqa-postgres-"))
        password = folder / "password"
        password.write_text(self.secrets["POSTGRES_PASSWORD"])
        if os.geteuid() == 0:
            for path in (folder, password):
                shutil.chown(path, "postgres")
        options = self.services["postgres"]["environment"]["POSTGRES_INITDB_ARGS"].split()
        subprocess.run(
            [
                *_as_postgres(), str(_programs() / "initdb"), "-D", str(folder / "data"), "-U",
                "postgres", f"--pwfile={password}", "--no-sync", *options,
            ],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        password.unlink()
        return folder

    def is_healthy(self, name: str) -> bool:
        """Ask what the service's health check asks."""
        if name == "postgres":
            command = [str(_programs() / "pg_isready"), "-q", "-h", "127.0.0.1"]
            return not subprocess.call([*command, "-p", str(self.ports[name])])
        path = "/api/health" if name == "prefect" else "/health"
        path = "/moto-api/data.json" if name == "s3" else path
        try:
            urllib.request.urlopen(self.url(name) + path, timeout=3).close()
        except OSError:
            return False
        return True

    def url(self, name: str) -> str:
        """Return the address of a service."""
        return f"http://127.0.0.1:{self.ports[name]}"

    def log(self, name: str) -> str:
        """Return what a service has said."""
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace")[-20000:] if path.exists() else ""

    def kill(self, name: str) -> None:
        """Kill all processes of a service, as a machine that fails would."""
        process = self._processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        """Kill what still runs, whoever uses a server before the server."""
        for name in reversed(list(self._processes)):
            self.kill(name)
        if self._storage is not None:
            self._storage.kill()
            self._storage.wait()
        if self._cluster is not None:
            shutil.rmtree(self._cluster)


def missing() -> str:
    """Say what this machine lacks to run the services, nothing if it lacks nothing."""
    return "" if _programs().is_dir() else "PostgreSQL's server is not installed"


def _programs() -> Path:
    """Return the folder of PostgreSQL's programs; Debian keeps them off the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = str(found[-1]) if found else shutil.which("initdb") or "/nonexistent/initdb"
    return Path(initdb).parent


def _as_postgres() -> list[str]:
    """Return what a command begins with that must not be root's."""
    return (
        ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
        if os.geteuid() == 0
        else []
    )
