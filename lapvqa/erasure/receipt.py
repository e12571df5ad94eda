"""A receipt on disk: JSON for machines, one page for people, no name and no key in either."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lapvqa import storage
from lapvqa.errors import ConfigError, LapvqaError
from lapvqa.lineage import merkle, signing
from lapvqa.project import Project

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1b1b; background: #fff }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #ddd;
         overflow-wrap: anywhere }
h2 { margin-top: 2rem }
.state { font-weight: bold }
"""
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
    scope, absence = receipt["scope"], receipt["absence"]
    parts = [
        f"<h1>Erasure {escape(receipt['patient'])}</h1>",
        _table([(name, receipt[name]) for name in _FACTS if name in receipt]),
        "<h2>Scope</h2>",
        _table(list(scope.items())),
        "<h2>Stores searched</h2>",
        _rows(receipt["stores"]),
        "<h2>Data before and after (DVC's md5)</h2>",
        _rows(receipt["outputs"]),
        "<h2>Rewritten</h2>",
        _rows([{"shards of": kind, **own} for kind, own in receipt["over_deletion"].items()]),
        "<h2>Models and metrics affected</h2>",
        _rows(receipt["models"]) + _rows(receipt["metrics"]) + _table(
            list(receipt["decision"].items())
        ),
        "<h2>What retraining costs</h2>",
        _rows(receipt["ways"]),
        "<h2>Absence, and the limits of its proof</h2>",
        _table([("left", absence["left"] or "nothing"),
                ("listed by the archive", absence["named_by_the_archive"])]),
        "<ul>" + "".join(f"<li>{escape(limit)}</li>" for limit in absence["limits"]) + "</ul>",
        "<h2>Archive, tombstone, recipients</h2>",
        _table([(name, receipt[name]) for name in ("archive", "tombstone", "recipients")]),
        "<h2>Not in the training set</h2>",
        _table([(name, receipt["training_set"][name]) for name in
                ("patients", "root", "absent", "remark")]),
        "<p>Signed: the .dsse.json beside the .json of this page; checked by "
        "<code>lapvqa erase --check</code>.</p>",
    ]  # fmt: skip
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width"><title>Erasure {escape(receipt["patient"])}</title>'
        f"<style>{_STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def _table(rows: Sequence[tuple[str, Any]]) -> str:
    cells = (f"<tr><th>{escape(_words(n))}</th><td>{_cell(v)}</td></tr>" for n, v in rows)
    return f"<table>{''.join(cells)}</table>"


def _rows(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "<p>none</p>"
    head = "".join(f"<th>{escape(_words(name))}</th>" for name in rows[0])
    body = (
        "<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row.values()) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{''.join(body)}</table>"


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return "<br>".join(f"{escape(_words(k))}: {_cell(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list | tuple):
        return "<br>".join(map(_cell, value)) or "none"
    return escape("not known" if value is None else str(value))


def _words(name: str) -> str:
    return name.replace("_", " ")
