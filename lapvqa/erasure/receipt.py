"""A receipt on disk: JSON for machines, one page for people, no name and no key in either."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lapvqa import storage
from lapvqa.errors import ConfigError, LapvqaError
from lapvqa.lineage import merkle, signing
from lapvqa.pages.templates import templates
from lapvqa.project import Project

_FACTS = ("request", "patient", "number", "begun", "written", "state")


COMPLETE = "complete"
"""The state of an erasure of which nothing is left to do."""


def write(project: Project, receipt: Mapping[str, Any]) -> None:
    """Write erasures/<patient's mark>: .json, .html, and .dsse.json, the signature of the first.

    A second erasure of the patient writes <mark>-2, and so on.
    """
    path, page, signed = paths(project, receipt)
    storage.write_json(path, receipt)
    storage.write_bytes(page, render(receipt).encode())
    about = {name: receipt[name] for name in ("request", "patient", "state", "written")}
    digests = {file.name: storage.sha256_file(file) for file in (path, page)}
    envelope = signing.sign(project, signing.statement(digests, signing.RECEIPT, about))
    storage.write_bytes(signed, envelope)


def paths(project: Project, receipt: Mapping[str, Any]) -> tuple[Path, Path, Path]:
    """Return where JSON, page and signature of a receipt lie."""
    path = _place(project, receipt["patient"], receipt.get("number", 1))
    return path, path.with_suffix(".html"), path.with_suffix(".dsse.json")


def next_number(project: Project, patient: str) -> int:
    """Return the number of the receipt to write: a complete one is never written over."""
    number = 1
    while (path := _place(project, patient, number)).exists() and read(path)["state"] == COMPLETE:
        number += 1
    return number


def _place(project: Project, patient: str, number: int) -> Path:
    return project.receipts / (f"{patient}-{number}.json" if number > 1 else f"{patient}.json")


def check(path: Path, public_key: bytes) -> dict[str, Any]:
    """Return a receipt whose signature and proof hold.

    Raises SignatureError if it was changed since it was signed, LapvqaError if its proof fails.
    """
    receipt, signed = read(path), path.with_suffix(".dsse.json")
    if not signed.exists():
        raise signing.SignatureError(
            f"expected the receipt's signature {signed.name} beside it, found none",
            hint="have it sent with the receipt",
        )
    if path.name not in signing.subjects(signing.check_file(signed, public_key)):
        raise signing.SignatureError(
            f"{signed.name}: expected a signature of {path.name}, found one of other files",
            hint="restore the receipt and its signature, or erase again to have a new one written",
        )
    require_proof(receipt)
    return receipt


def require_proof(receipt: Mapping[str, Any]) -> None:
    """Check a receipt's proof of absence by itself; LapvqaError if it does not hold."""
    told = receipt["training_set"]
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in told["proof"].items()
    }
    if not merkle.is_absent(told["root"], bytes.fromhex(told["absent"]), merkle.Absence(**values)):
        raise LapvqaError(
            "expected a proof that the patient is not in the training set, found one that fails",
            hint="the receipt was changed, or belongs to another training set",
        )


def read(path: Path) -> dict[str, Any]:
    """Read a receipt; ConfigError if the file is none."""
    try:
        receipt: dict[str, Any] = json.loads(path.read_bytes())
        if receipt["receipt"] == "lapvqa erasure":
            return receipt
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise ConfigError(
        f"expected a receipt of an erasure at {path.name}, found none",
        hint="receipts are erasures/*.json of a project",
    )


def render(receipt: Mapping[str, Any]) -> str:
    """Return the page."""
    page = templates(Path(__file__).parent).get_template("receipt.html")
    about = {name: receipt[name] for name in _FACTS if name in receipt}
    rewritten = [{"shards of": kind, **own} for kind, own in receipt["over_deletion"].items()]
    return page.render(receipt=receipt, about=about, rewritten=rewritten)
