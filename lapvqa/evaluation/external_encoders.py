"""External encoders: their names, their folders of results, the record of their origin.

evaluations/<name>/encoder.json: {"digest": sha256 of the weights, "about", "file": last part of
its path, "trained_on": what was stated of its training, if so}; beside it a folder per task, as
results/<task>.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lapvqa import storage
from lapvqa.errors import ConfigError, no_such
from lapvqa.evaluation import features
from lapvqa.evaluation.contamination import training_of
from lapvqa.evaluation.encoders.open_encoder import open_encoder
from lapvqa.evaluation.evaluate import EncoderSet
from lapvqa.evaluation.image_encoder import ImageEncoder
from lapvqa.evaluation.results import BASELINE, ENCODER, PAIRS
from lapvqa.ingest.archives.names import shown
from lapvqa.project import Project

RESERVED = (*PAIRS[""], *PAIRS["head"], BASELINE)
"""Systems of the pipeline's own results."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


def name_of(path: Path, given: str | None = None) -> str:
    """Return the name of an encoder's results: the given one, else its file's or folder's.

    Raises ConfigError for a given name that is no name of a folder, or a system's.
    """
    name = given if given is not None else _safe(path)
    if _NAME.fullmatch(name) and name not in RESERVED and not name.startswith("comparison."):
        return name
    if name in RESERVED:
        raise ConfigError(
            f"expected a name of the encoder's own, found {name!r}, one of the pipeline's systems",
            hint=f"give another with --name; taken are {', '.join(RESERVED)}",
        )
    better = _as_name(name)
    if not better or better in RESERVED or better.startswith("comparison."):
        better = "demo-one"
    raise ConfigError(
        f"expected a name of small letters, digits and -, found {name!r}",
        hint=f"such as --name {better}",
    )


def _safe(path: Path) -> str:
    resolved = path.resolve()
    return _as_name(resolved.stem if resolved.is_file() else resolved.name)


def _as_name(text: str) -> str:
    return re.sub(r"[^a-z0-9_.-]+", "-", text.lower()).strip("-._")[:64]


def claim(name: str, path: Path, project: Project) -> None:
    """Open the encoder at ``path`` and record under ``name`` what it is; a statement stays.

    Raises ConfigError if the name has results of another encoder, and what ``open_encoder`` does.
    """
    encoder = open_encoder(path)
    digest = features.encoder_digest(encoder)
    file = project.evaluations_dir(name) / ENCODER
    known = storage.read_json(file, made_by="evaluate") if file.exists() else {"digest": digest}
    if known["digest"] != digest:
        raise ConfigError(
            f"evaluations/{name} has results of another encoder (weights {known['digest'][:12]}), "
            f"found {digest[:12]} in {path.name}",
            hint="give this one another name with --name, or delete that folder",
        )
    facts = {"digest": digest, "about": encoder.about, "file": shown(path.resolve().name)}
    storage.write_json(file, {**known, **facts})


def state(name: str, trained_on: str, project: Project) -> None:
    """Keep what somebody says an encoder was trained on; ConfigError if it was never judged."""
    known = read_encoders(project)
    if name not in known:
        raise no_such("encoder in evaluations/ called", name, known)
    file = project.evaluations_dir(name) / ENCODER
    storage.write_json(file, {**known[name], "trained_on": trained_on})


def external_encoder(name: str, path: Path, project: Project) -> EncoderSet:
    """Return an external encoder as a task judges it, without the pipeline's model."""

    def load() -> dict[str, ImageEncoder]:  # anew for each task: a native recipe trains it
        return {name: open_encoder(path)}

    return EncoderSet(load, project.evaluations_dir(name), training=training_of(path))


def read_encoders(project: Project) -> dict[str, dict[str, Any]]:
    """Return name -> encoder.json of every encoder that has a folder, by name."""
    files = sorted(project.evaluations_dir("x").parent.glob(f"*/{ENCODER}"))
    return {file.parent.name: storage.read_json(file, made_by="evaluate") for file in files}
