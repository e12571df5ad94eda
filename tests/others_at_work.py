"""Looking at what other processes do: they end, files go and ports are taken while one looks."""

from __future__ import annotations

import os
import random
import socket
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

import psutil

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
# Below the range from which the system takes ports of its own (ip_local_port_range); each test
# process has a part for itself, and gives none twice.
_ports = list(range(20_000 + 1_000 * _WORKER, 21_000 + 1_000 * _WORKER))
random.shuffle(_ports)


def is_alive(pid: int) -> bool:
    """Tell whether a process is there and has not ended: nobody may ever wait for an orphan."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def is_called(process: psutil.Process, word: str) -> bool:
    """Tell whether a process that has not ended has this in its command line."""
    with suppress(psutil.Error):
        return any(word in argument for argument in process.cmdline())
    return False


def working_in(folder: Path) -> list[psutil.Process]:
    """Return the processes whose working folder this is."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd() == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def kill_all(processes: list[psutil.Process]) -> None:
    """Kill these, as far as they have not ended by themselves."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def files_below(folder: Path, pattern: str) -> list[Path]:
    """Return the files with such a name; ``rglob`` raises where a folder goes meanwhile."""
    return [
        Path(parent, name)
        for parent, _, names in os.walk(folder)
        for name in names
        if fnmatch(name, pattern)
    ]


def free_port() -> int:
    """Return a port that nobody listens on, and that nobody is given by chance before its use."""
    while True:
        port = _ports.pop()
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
