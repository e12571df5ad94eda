"""What lies in a folder of weights: its JSON files and its weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lapvqa.errors import CheckpointError


def read_config(path: Path) -> dict[str, Any]:
    """Return a JSON object; CheckpointError if the file is missing, damaged or something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"expected {path.name} in the folder {path.parent.name}, found {listed(path.parent)}",
            hint="copy the whole folder of the checkpoint, as its library saves it",
        ) from None
    except ValueError as error:
        raise CheckpointError(
            f"expected JSON in {path.name}, could not read it", hint="get the file again"
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(
            f"expected a JSON object in {path.name}, found {type(value).__name__}",
            hint="get the file again",
        )
    return value


def find_weights(folder: Path, names: Sequence[str]) -> Path:
    """Return the first of ``names`` that is there; CheckpointError if none is."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        f"expected weights in the folder {folder.name}, found {listed(folder)}",
        hint=f"accepted: {', '.join(names)}",
    )


def listed(folder: Path, *, at_most: int = 8) -> str:
    """Name the first files of a folder, for a message."""
    names = sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []
    more = " ..." if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more if names else "nothing"


def load_exactly(module: nn.Module, weights: dict[str, Tensor], *, name: str) -> None:
    """Load weights that fit tensor by tensor; CheckpointError names the first that do not."""
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        lines = [" ".join(line.split()) for line in str(error).splitlines()[1:3]]
        raise CheckpointError(
            f"{name} does not fit its configuration: {'; '.join(lines)[:400]}",
            hint="configuration and weights must come from one checkpoint",
        ) from error
