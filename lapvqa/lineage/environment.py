"""Where a stage ran: versions, the lock's digest, the host and its GPU."""

from __future__ import annotations

import platform
import socket
import sys
from importlib import metadata
from typing import Any

from lapvqa import storage
from lapvqa.project import Project

_PACKAGES = ("lapvqa", "torch", "numpy", "pyarrow", "pydicom", "dvc", "mlflow", "prefect")


def facts(project: Project) -> dict[str, Any]:
    """Return the environment of this process; asks torch for the GPU only if torch is loaded."""
    lock = project.root / "requirements" / "lock.txt"
    found = {
        "python": platform.python_version(),
        "host": socket.gethostname(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "lock": storage.sha256_file(lock) if lock.exists() else None,
        "gpu": _gpu(),
    }
    return {key: value for key, value in found.items() if value is not None}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _gpu() -> str | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
