"""Tell whose encoder lies at a path, and open it: our own, or another library's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from lapvqa.errors import CheckpointError, MissingArtifactError
from lapvqa.evaluation.encoders.external import file_names, read_config
from lapvqa.evaluation.encoders.from_open_clip import CONFIG, WEIGHTS, open_open_clip
from lapvqa.evaluation.encoders.from_timm import open_timm
from lapvqa.evaluation.encoders.from_transformers import open_transformers
from lapvqa.evaluation.image_encoder import ImageEncoder, OwnEncoder
from lapvqa.networks.encoder import VisionEncoder
from lapvqa.networks.weights import load_weights
from lapvqa.params import ModelParams, validate
from lapvqa.pretrain.files import CARD_FILE, ENCODER_FILE, read_card
from lapvqa.pretrain.model import build_encoder

_ACCEPTED = (
    "accepted: our export (encoder_final.pt, with card.json or of the published sizes), "
    "a transformers folder (config.json with model_type), "
    "a timm folder (config.json with architecture), "
    "an open_clip folder (open_clip_config.json with open_clip_model.safetensors)"
)


def open_encoder(path: Path) -> ImageEncoder:
    """Open the encoder at a local path, in eval mode; nothing is fetched.

    A folder of several forms is opened as the first of: ours, open_clip, transformers, timm.
    Raises MissingArtifactError if nothing is there, MissingPackageError if its library is not
    installed, CheckpointError if it is of no known form or does not fit.
    """
    if path.is_file():
        return open_own(path)
    if not path.is_dir():
        raise MissingArtifactError(
            f"expected an encoder at {path}, found nothing",
            hint=f"give a local path (nothing is downloaded); {_ACCEPTED}",
        )
    return _open_folder(path).eval()


def _open_folder(folder: Path) -> ImageEncoder:
    if (folder / CARD_FILE).is_file() or (folder / ENCODER_FILE).is_file():
        return open_own(folder)
    if (folder / CONFIG).is_file() and any((folder / name).is_file() for name in WEIGHTS):
        return open_open_clip(folder)
    config = read_config(folder / "config.json") if (folder / "config.json").is_file() else {}
    if "model_type" in config:
        return open_transformers(folder)
    if "architecture" in config:
        return open_timm(folder)
    raise CheckpointError(
        f"expected an encoder in the folder {folder.name!r}, found {file_names(folder)}",
        hint=_ACCEPTED,
    )


def open_own(path: Path) -> OwnEncoder:
    """Open an export folder or a weights file.

    The sizes are those of the card.json beside the weights; without one they are the published
    ones (ViT-L/14, 384 px). Raises MissingArtifactError without weights, CheckpointError if they
    do not fit.
    """
    weights = path / ENCODER_FILE if path.is_dir() else path
    if not weights.is_file():
        raise MissingArtifactError(
            f"expected {weights.name} in {weights.parent.name}/, found nothing",
            hint="of this project's own: `lapvqa run --stage export`; else give the path of "
            "another encoder",
        )
    encoder = _untrained(weights.parent)
    load_weights(encoder, weights)
    return OwnEncoder(encoder.eval())


def _untrained(folder: Path) -> VisionEncoder:
    sizes: object = {}
    if (folder / CARD_FILE).is_file():
        sizes = read_card(folder).get("model")
    if not isinstance(sizes, Mapping):
        raise CheckpointError(
            f"expected the model's sizes under model in {CARD_FILE}, found {type(sizes).__name__}",
            hint="of this project's own: `lapvqa run --stage export` again; else take the "
            f"{CARD_FILE} that came with the weights",
        )
    with torch.random.fork_rng(devices=[]):
        return build_encoder(validate(ModelParams, dict(sizes), CARD_FILE))
