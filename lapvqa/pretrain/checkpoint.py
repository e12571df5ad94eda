"""States of an unfinished training, whole or not there.

A state is ``state-<step>.pt``, and beside it, written last, ``state-<step>.json`` with its sha256:
a state without its json, or with another digest, does not count.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from lapvqa import storage

State = dict[str, Any]


def serialise(value: Any) -> bytes:
    """Return ``torch.save``'s bytes; through memory, because a file's name becomes part of them."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


class Checkpoints:
    """The states in one folder, of which the last ``keep`` stay."""

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def save(self, step: int, state: State) -> None:
        """Write the state after ``step`` steps and delete those that are too old."""
        data = serialise(state)
        path = self.folder / f"state-{step:09d}.pt"
        storage.write_bytes(path, data)
        storage.write_json(path.with_suffix(".json"), {"sha256": hashlib.sha256(data).hexdigest()})
        self.prune(self.keep)

    def newest(self) -> State | None:
        """Return the newest whole state, or None; a damaged one falls back to the one before."""
        for manifest in sorted(self.folder.glob("state-*.json"), reverse=True):
            data = _read_whole(manifest)
            if data is not None:
                state: State = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
                return state
        return None

    def prune(self, keep: int) -> None:
        """Delete all but the newest ``keep`` states."""
        for manifest in sorted(self.folder.glob("state-*.json"), reverse=True)[keep:]:
            manifest.unlink()  # first: a state without its json does not count
            manifest.with_suffix(".pt").unlink(missing_ok=True)


def _read_whole(manifest: Path) -> bytes | None:
    try:
        expected = json.loads(manifest.read_bytes())["sha256"]
        data = manifest.with_suffix(".pt").read_bytes()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return data if hashlib.sha256(data).hexdigest() == expected else None


def prune_runs(folder: Path, *, current: str, keep: int = 3) -> None:
    """Delete the states of other parameters or data but for the ``keep`` used last."""
    others = [path for path in folder.iterdir() if path.is_dir() and path.name != current]
    for path in sorted(others, key=lambda path: path.stat().st_mtime_ns, reverse=True)[keep:]:
        shutil.rmtree(path)
