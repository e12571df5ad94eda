"""The files of a model's folder, and the models that card.json and the weights beside it make.

Which forms of weights are accepted: ``lapvqa.networks.weights``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch

from lapvqa import storage
from lapvqa.errors import CheckpointError, ConfigError
from lapvqa.networks.encoder import VisionEncoder
from lapvqa.networks.weights import load_weights
from lapvqa.params import ModelParams, validate
from lapvqa.pretrain.model import (
    MODELS,
    CaptioningModel,
    PretrainedModel,
    build_encoder,
    initial_model,
)

MODEL_FILE, LAST_FILE = "model_best.pt", "model_last.pt"
TRAINING_FILE, EPOCHS_DIR = "training.json", "epochs"
ENCODER_FILE, SAFETENSORS_FILE = "encoder_final.pt", "encoder.safetensors"
EXPORTS_DIR = "exports"
PROGRAM_FILE, ONNX_FILE = f"{EXPORTS_DIR}/encoder.pt2", f"{EXPORTS_DIR}/encoder.onnx"
GRAPHS_FILE = f"{EXPORTS_DIR}/files.json"
CARD_FILE = "card.json"
ADAPTATION_FILE = "adaptation.json"
"""Beside an exported model repository's weights."""


def read_card(folder: Path) -> dict[str, Any]:
    """Return card.json: sizes, input contract, digests, where the weights come from."""
    card: dict[str, Any] = storage.read_json(folder / CARD_FILE, made_by="export")
    return card


def load_model(folder: Path) -> PretrainedModel:
    """Return the trained model of a folder, of the class that its objective trains, in eval mode.

    Raises MissingArtifactError without its files, CheckpointError if they do not fit.
    """
    model = _build(folder, seed=0)
    load_weights(model, storage.require(folder / MODEL_FILE, made_by="pretrain"))
    return model.eval()


def load_encoder(folder: Path) -> VisionEncoder:
    """Return the trained encoder of a folder, in eval mode; raises as ``load_model`` does."""
    with torch.random.fork_rng(devices=[]):
        encoder = build_encoder(_sizes(folder))
    load_weights(encoder, storage.require(folder / ENCODER_FILE, made_by="export"))
    return encoder.eval()


def untrained_model(folder: Path) -> PretrainedModel:
    """Return the folder's model as it was before its first step, in eval mode."""
    return _build(folder, seed=read_card(folder)["init_seed"]).eval()


def load_captioner(folder: Path) -> CaptioningModel:
    """Return the trained model; CheckpointError if it is one that writes no reports."""
    return _captioner(load_model(folder), folder)


def untrained_captioner(folder: Path) -> CaptioningModel:
    """Return the model before its first step; CheckpointError if it writes no reports."""
    return _captioner(untrained_model(folder), folder)


def untrained_encoder(folder: Path) -> VisionEncoder:
    """Return the encoder of ``untrained_model``.

    The card may know no objective: every model takes its encoder's weights from the seed first.
    """
    seed = read_card(folder)["init_seed"]
    return initial_model(_sizes(folder), seed=seed).vision_encoder.eval()


def read_objective(folder: Path) -> str:
    """Return the objective that the folder's model was trained with: a key of MODELS."""
    objective = read_card(folder).get("objective")
    if objective not in MODELS:
        raise CheckpointError(
            f"expected an objective in {CARD_FILE}, found {objective!r}",
            hint=f"known: {', '.join(MODELS)}; run `lapvqa run --stage export` again",
        )
    return str(objective)


def writes_reports(folder: Path) -> bool:
    """Say whether the folder's model writes reports, without making it."""
    with torch.device("meta"):
        return _build(folder, seed=0).writes


def _captioner(model: PretrainedModel, folder: Path) -> CaptioningModel:
    if not model.writes:
        raise CheckpointError(
            f"expected a model that writes reports, found the objective {read_objective(folder)}",
            hint="set pretrain.objective to captioning, or use `load_model` for embeddings",
        )
    return cast("CaptioningModel", model)


def _build(folder: Path, *, seed: int) -> PretrainedModel:
    return initial_model(_sizes(folder), seed=seed, objective=read_objective(folder))


def _sizes(folder: Path) -> ModelParams:
    try:
        return validate(ModelParams, read_card(folder)["model"], CARD_FILE)
    except (KeyError, ConfigError) as error:
        raise CheckpointError(
            f"expected the model's sizes in {CARD_FILE}: {error}",
            hint="run `lapvqa run --stage export` again",
        ) from error
