"""A probe's regressions as a file: tensors of ``LinearHead``, and the labels among its metadata."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from lapvqa import storage
from lapvqa.probe.linear import LinearHead

FILE = "probe.safetensors"
_PARTS = ("mean", "scale", "coef", "intercept")


def save(head: LinearHead, labels: Sequence[str], path: Path) -> None:
    """Write a head, atomically; equal heads give equal bytes."""
    tensors = {part: np.ascontiguousarray(getattr(head, part)) for part in _PARTS}
    facts = {"labels": json.dumps(list(labels))}
    storage.write_bytes(path, safetensors.numpy.save(tensors, facts))


def load(path: Path) -> tuple[LinearHead, list[str]]:
    """Return a head and its labels; MissingArtifactError without a file."""
    storage.require(path, made_by="evaluate")
    with safetensors.safe_open(path, "numpy") as file:
        labels: list[str] = json.loads(file.metadata()["labels"])
        return LinearHead(**{part: file.get_tensor(part) for part in _PARTS}), labels
