"""Checkpoints of an unfinished training, complete or absent, written while training goes on.

A state is ``state-<step>.pt``, and beside it, written last, ``state-<step>.json`` with its sha256:
a state without its json, or with another digest, does not count.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

import numpy as np
import torch
from torch import Tensor

from lapvqa import storage

State = dict[str, Any]


class Checkpoints:
    """The states in one folder, of which the last ``keep`` stay.

    Used as a context: leaving it waits for what is still being written.
    """

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.shutdown(wait=True)
        if error is None:
            self.wait()

    def save(self, step: int, state: State) -> None:
        """Write the state after ``step`` steps beside the training that goes on.

        Its tensors must not change any more (see ``snapshot``). At most one state is being
        written: a second waits for the first, and raises its error.
        """
        self.wait()
        self._pending = self._writer.submit(self._write, step, state)

    def wait(self) -> None:
        """Return once the last state is on disk; raise its error if that failed."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _write(self, step: int, state: State) -> None:
        path = self._path(step)
        with storage.atomic_path(path) as temporary, temporary.open("wb") as handle:
            hashing = _Hashing(handle)
            torch.save(state, cast("IO[bytes]", hashing))
        storage.write_json(path.with_suffix(".json"), {"sha256": hashing.digest.hexdigest()})
        self.prune(self.keep)

    def newest(self, *, at_most: int | None = None) -> State | None:
        """Return the newest complete state, or None; a damaged one falls back to the one before.

        ``at_most``: none after more steps than that.
        """
        for manifest in sorted(self.folder.glob("state-*.json"), reverse=True):
            if at_most is not None and int(manifest.stem.removeprefix("state-")) > at_most:
                continue
            if _is_complete(manifest):
                return _load(manifest.with_suffix(".pt"))
        return None

    def mapped(self, step: int) -> State:
        """Return the state after ``step`` steps, found whole by another process.

        Its tensors are read where they are used, from memory that all processes share.
        """
        return _load(self._path(step), mapped=True)

    def _path(self, step: int) -> Path:
        return self.folder / f"state-{step:09d}.pt"

    def prune(self, keep: int) -> None:
        """Delete all but the newest ``keep`` states."""
        for manifest in sorted(self.folder.glob("state-*.json"), reverse=True)[keep:]:
            manifest.unlink()  # first: a state without its json does not count
            manifest.with_suffix(".pt").unlink(missing_ok=True)


class _Hashing:
    """A file that computes the sha256 of what is written to it."""

    def __init__(self, handle: io.BufferedWriter) -> None:
        self._handle = handle
        self.digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return self._handle.write(data)

    def flush(self) -> None:
        self._handle.flush()


def snapshot(value: Any) -> Any:
    """Return a copy of nested tensors on the CPU, which training cannot change any more."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: snapshot(part) for key, part in value.items()}
    return value


def generator_states() -> dict[str, Any]:
    """Return the state of every generator of Python, NumPy and torch.

    Training draws from none of them (its numbers are functions of the step), but a library may.
    """
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [str(name), torch.from_numpy(np.array(keys)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_generators(states: dict[str, Any]) -> None:
    """Restore every generator; on another number of GPUs, those keep their own state."""
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy(), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


def _load(path: Path, *, mapped: bool = False) -> State:
    state: State = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    return state


def _is_complete(manifest: Path) -> bool:
    try:
        expected = json.loads(manifest.read_bytes())["sha256"]
        return bool(storage.sha256_file(manifest.with_suffix(".pt")) == expected)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def prune_runs(folder: Path, *, current: str, keep: int = 3) -> None:
    """Delete the states of other runs than ``current``, except those of the last ``keep`` used."""
    others = [path for path in folder.iterdir() if path.is_dir() and path.name != current]
    for path in sorted(others, key=lambda path: path.stat().st_mtime_ns, reverse=True)[keep:]:
        shutil.rmtree(path)
