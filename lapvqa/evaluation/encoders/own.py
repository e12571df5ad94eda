"""Our own encoders: an export with its card, or published weights alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from lapvqa import storage
from lapvqa.errors import CheckpointError
from lapvqa.evaluation.image_encoder import OwnEncoder
from lapvqa.networks.encoder import VisionEncoder
from lapvqa.networks.weights import load_weights
from lapvqa.params import ModelParams, validate
from lapvqa.pretrain.files import CARD_FILE, ENCODER_FILE, read_card
from lapvqa.pretrain.model import build_encoder


def open_own(path: Path) -> OwnEncoder:
    """Open an export folder or a weights file.

    The sizes are those of the card.json beside the weights; without one they are the published
    ones (ViT-L/14, 384 px). Raises MissingArtifactError without weights, CheckpointError if they
    do not fit.
    """
    weights = storage.require(path / ENCODER_FILE if path.is_dir() else path, made_by="export")
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
            hint="run `lapvqa run --stage export` again",
        )
    with torch.random.fork_rng(devices=[]):
        return build_encoder(validate(ModelParams, dict(sizes), CARD_FILE))
