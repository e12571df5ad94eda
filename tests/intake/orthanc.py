"""Debian's Orthanc as a hospital's PACS, on loopback, for tests."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from others_at_work import free_port

PROGRAM = shutil.which("Orthanc")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
MISSING = "Orthanc with its DICOMweb plugin is not here (Debian: orthanc, orthanc-dicomweb)"


@dataclass(frozen=True)
class Orthanc:
    """A PACS that runs: AE title ORTHANC, and where it listens and sends to."""

    http: int
    dicom: int
    sends_to: int
    """Port of the receiver that a C-MOVE to the AE title WARD goes to."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http}/dicom-web"


def is_here() -> bool:
    """Tell whether it is installed."""
    return PROGRAM is not None and PLUGIN.exists()


@contextmanager
def running(folder: Path) -> Iterator[Orthanc]:
    """Start an empty one, and end it."""
    orthanc = Orthanc(free_port(), free_port(), free_port())
    store = str(folder / "db")
    settings = {
        "Name": "test", "StorageDirectory": store, "IndexDirectory": store,
        "HttpPort": orthanc.http, "DicomPort": orthanc.dicom, "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
        "Plugins": [str(PLUGIN)], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        "DicomModalities": {
            "ward": ["WARD", "127.0.0.1", orthanc.sends_to],
            "mover": ["MOVESCU", "127.0.0.1", 1],
        },
        "DicomAlwaysAllowStore": True, "DicomAlwaysAllowEcho": True, "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True, "DicomAlwaysAllowMove": True,
        "UnknownSopClassAccepted": False, "HttpThreadsCount": 4,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(PROGRAM), str(folder / "orthanc.json")], stdout=log, stderr=log
        )
    try:
        _wait(f"http://127.0.0.1:{orthanc.http}/system", process, folder / "log")
        yield orthanc
    finally:
        process.terminate()
        process.wait(20)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(200):
        if process.poll() is not None:
            raise AssertionError(f"Orthanc ended: {log.read_text()[-2000:]}")
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError("Orthanc does not answer")
