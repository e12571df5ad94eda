"""``lapvqa export-lineage``: the ledger in a format that other tools read."""

from __future__ import annotations

from pathlib import Path

from flows.commands import own_files, terminal
from lapvqa.errors import ConfigError, no_such
from lapvqa.lineage import ledger
from lapvqa.lineage.ancestry import Ancestry
from lapvqa.lineage.exports import as_openlineage, as_prov, as_ro_crate
from lapvqa.lineage.exports.parts import selected
from lapvqa.project import Project

FORMATS = {"openlineage": "events", "prov": "records", "ro-crate": "entities"}
"""Format -> what its file or folder holds."""


def execute(project: Project, *, target: str | None, form: str, out: Path | None) -> int:
    """Write the runs of ``target``, or all, to ``out``."""
    if form not in FORMATS:
        raise no_such("format", form, FORMATS)
    if out is None:
        raise ConfigError("expected --out, found none", hint="name the file or folder to write")
    if form == "ro-crate":  # a crate is a folder: its writer looks at what is there
        own_files.require_writable(out.parent, "--out")
    else:
        own_files.require(out, "--out", "an export", own_files.holds(b"urn:lapvqa:"))
    ledger.require_whole(project)
    ancestry = Ancestry(ledger.entries(project))
    runs = selected(project, ancestry, target)
    if form == "openlineage":
        count = as_openlineage.write(ancestry, runs, out)
    elif form == "prov":
        count = as_prov.write(ancestry, runs, out)
    else:
        count = as_ro_crate.write(project, ancestry, runs, out)
    terminal.console().print(
        f"wrote {out}: {terminal.counted(len(runs), 'run')}, {count} {FORMATS[form]}",
        soft_wrap=True,
        markup=False,
    )
    return 0
