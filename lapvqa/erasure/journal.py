"""An open erasure: what is looked for, what was found, which steps are done.

One private file under .lapvqa/erasures/ per patient, written after each step and deleted with the
last. A process that is killed at any moment leaves it; the same command goes on from there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lapvqa import storage
from lapvqa.erasure.traces import Traces
from lapvqa.project import Project


@dataclass
class Journal:
    """The state of one erasure."""

    name: str
    """Of the patient's mark: it says nothing without the key."""
    request: str
    started: float
    traces: Traces
    facts: dict[str, Any] = field(default_factory=dict)
    """What steps found out, by step; a step is done when its entry is there."""
    number: int = 1
    """Of its receipt: 2 where a complete one exists, which is not written over, and so on."""

    def keep(self, project: Project) -> None:
        """Write it, readable by this user alone."""
        project.open_erasures.mkdir(parents=True, exist_ok=True, mode=0o700)
        content = {
            "name": self.name, "request": self.request, "started": self.started,
            "traces": self.traces.to_json(), "facts": self.facts, "number": self.number,
        }  # fmt: skip
        path = place(project, self.name)
        storage.write_json(path, content)
        path.chmod(0o600)

    def forget(self, project: Project) -> None:
        """Overwrite and delete it."""
        path = place(project, self.name)
        if path.exists():
            with path.open("r+b") as handle:
                handle.write(b"\0" * path.stat().st_size)
                handle.flush()
                os.fsync(handle.fileno())
            path.unlink()


def place(project: Project, name: str) -> Path:
    """Return where an erasure's journal lies while it is open."""
    return project.open_erasures / f"{name}.json"


def load(project: Project, name: str) -> Journal | None:
    """Return the open erasure of that name, if there is one."""
    path = place(project, name)
    if not path.exists():
        return None
    content = json.loads(path.read_bytes())
    return Journal(
        content["name"], content["request"], content["started"],
        Traces.of_json(content["traces"]), content["facts"], content.get("number", 1),
    )  # fmt: skip


def stands_at(facts: Mapping[str, Any], steps: Sequence[str]) -> str:
    """Say of an open erasure what it waits for, or where it was cut off; of its ``facts``."""
    done = [step for step in steps if step in facts]
    undone = next((step for step in steps if step not in facts), "the receipt")
    if undone == steps[0] and facts.get("left"):
        return "files that are not LAPVQA's hold traces still: edit them"
    if undone == steps[0] and "earlier" in facts:
        return "it waits until the archive's owner has deleted the files"
    return f"it was cut off before {undone}" if done else "it was cut off at its beginning"
