"""Validate a crate by roc-validator without a network; run by the Python of its own environment.

    python roc_check.py CRATE CONTEXT.jsonld SCRATCH

Prints what the validator says, as JSON. The JSON-LD context of RO-Crate 1.1 is put into its cache
of web pages first: it would fetch it.
"""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from requests_cache import CachedSession
from urllib3 import HTTPResponse

PROFILE = "provenance-run-crate-0.5"
CONTEXT = "https://w3id.org/ro/crate/1.1/context"


class Answer(HTTPAdapter):
    """Gives one file for every address."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.content = content

    def send(self, request: requests.PreparedRequest, **_: object) -> requests.Response:
        raw = HTTPResponse(
            io.BytesIO(self.content), {"Content-Type": "application/ld+json"}, 200,
            preload_content=False,
        )  # fmt: skip
        return self.build_response(request, raw)


def main(crate: Path, context: Path, scratch: Path) -> None:
    with CachedSession(str(scratch / "cache"), backend="sqlite", expire_after=-1) as session:
        session.mount("https://", Answer(context.read_bytes()))
        session.get(CONTEXT, headers={"Accept": "application/ld+json, application/json"})
    report = scratch / "report.json"
    command = [
        str(Path(sys.executable).with_name("rocrate-validator")), "-y", "validate", str(crate),
        "--offline", "--cache-path", str(scratch / "cache"), "-p", PROFILE, "-l", "required",
        "-f", "json", "-o", str(report),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not report.exists():
        sys.exit(done.stdout + done.stderr)
    sys.stdout.write(report.read_text())


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
