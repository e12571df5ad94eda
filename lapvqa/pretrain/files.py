"""Weights on disk: build a model from its folder's card.json and load what lies beside it.

Accepted forms: a plain state dict as .pt or .safetensors; one under ``model_state`` or
``encoder_state``; with the names that DDP and torch.compile give; a whole model where its encoder
is wanted. Files never run code: all are read with ``weights_only=True``.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from lapvqa import storage
from lapvqa.errors import CheckpointError, ConfigError
from lapvqa.networks import weights
from lapvqa.params import ModelParams, validate
from lapvqa.pretrain.model import (
    OBJECTIVES,
    CaptioningModel,
    ContrastiveModel,
    VisionEncoder,
    build_encoder,
    initial_model,
)

MODEL_FILE, LAST_FILE = "model_best.pt", "model_last.pt"
TRAINING_FILE, EPOCHS_DIR = "training.json", "epochs"
ENCODER_FILE, SAFETENSORS_FILE = "encoder_final.pt", "encoder.safetensors"
EXPORTS_DIR = "exports"
PROGRAM_FILE, ONNX_FILE = f"{EXPORTS_DIR}/encoder.pt2", f"{EXPORTS_DIR}/encoder.onnx"
CARD_FILE = "card.json"

_WRAPPERS = ("model_state", "encoder_state")
_NAMED_AT_MOST = 3


def read_card(folder: Path) -> dict[str, Any]:
    """Return card.json: sizes, input contract, digests, where the weights come from."""
    card: dict[str, Any] = storage.read_json(folder / CARD_FILE, made_by="export")
    return card


def load_model(folder: Path) -> CaptioningModel | ContrastiveModel:
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


def untrained_model(folder: Path) -> CaptioningModel | ContrastiveModel:
    """Return the folder's model as it was before its first step, in eval mode."""
    return _build(folder, seed=read_card(folder)["init_seed"]).eval()


def load_captioner(folder: Path) -> CaptioningModel:
    """Return ``load_model``'s; CheckpointError if it is one that writes no reports."""
    return _captioner(load_model(folder), folder)


def untrained_captioner(folder: Path) -> CaptioningModel:
    """Return ``untrained_model``'s; CheckpointError if it is one that writes no reports."""
    return _captioner(untrained_model(folder), folder)


def untrained_encoder(folder: Path) -> VisionEncoder:
    """Return the encoder of ``untrained_model``.

    The card may know no objective: every model takes its encoder's weights from the seed first.
    """
    seed = read_card(folder)["init_seed"]
    return initial_model(_sizes(folder), seed=seed).vision_encoder.eval()


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a weights file into ``module``; CheckpointError says what does not fit.

    Where ``module`` is an encoder and the file a whole model, its encoder is taken.
    """
    found = read_weights(path)
    if isinstance(module, VisionEncoder):
        found = weights.encoder_part(found)
    expected = module.state_dict()
    faults = _faults(expected, found)
    if faults:
        raise CheckpointError(
            f"{path.name} does not fit {type(module).__name__}: {'; '.join(faults)}",
            hint=_remedy(expected, found),
        )
    module.load_state_dict(found)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict in any of the accepted forms, without its wrappers.

    Raises CheckpointError for a damaged file or one that holds something else.
    """
    try:
        value = _read(path)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, ValueError) as error:
        raise CheckpointError(
            f"expected weights in {path.name}, found a damaged or unsafe file",
            hint="get the file again, or run the stage that makes it",
        ) from error
    for name in _WRAPPERS:
        if isinstance(value, Mapping) and isinstance(value.get(name), Mapping):
            value = value[name]
    if not _is_state_dict(value):
        raise CheckpointError(
            f"expected a state dict in {path.name}, found {_content(value)}",
            hint=f"accepted: a plain state dict, or one under {' or '.join(_WRAPPERS)}",
        )
    return weights.without_wrappers(value)


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return safetensors.torch.load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(name, str) for name in value)
        and all(isinstance(tensor, Tensor) for tensor in value.values())
    )


def _content(value: Any) -> str:
    """Describe what stands where a state dict should; names only, never values."""
    if not isinstance(value, Mapping):
        return type(value).__name__
    names = [str(name) for name in value]
    more = " ..." if len(names) > _NAMED_AT_MOST else ""
    return f"{type(value).__name__} with {', '.join(names[:_NAMED_AT_MOST]) or 'nothing'}{more}"


def read_objective(folder: Path) -> str:
    """Return the objective that the folder's model was trained with: a key of OBJECTIVES."""
    found = read_card(folder).get("objective")
    if found not in OBJECTIVES:
        raise CheckpointError(
            f"expected an objective in {CARD_FILE}, found {found!r}",
            hint=f"known: {', '.join(OBJECTIVES)}; run `lapvqa run --stage export` again",
        )
    return str(found)


def _captioner(model: CaptioningModel | ContrastiveModel, folder: Path) -> CaptioningModel:
    if not isinstance(model, CaptioningModel):
        raise CheckpointError(
            f"expected a model that writes reports, found the objective {read_objective(folder)}",
            hint="set pretrain.objective to captioning, or use `load_model` for embeddings",
        )
    return model


def _build(folder: Path, *, seed: int) -> CaptioningModel | ContrastiveModel:
    return initial_model(_sizes(folder), seed=seed, objective=read_objective(folder))


def _sizes(folder: Path) -> ModelParams:
    try:
        return validate(ModelParams, read_card(folder)["model"], CARD_FILE)
    except (KeyError, ConfigError) as error:
        raise CheckpointError(
            f"expected the model's sizes in {CARD_FILE}: {error}",
            hint="run `lapvqa run --stage export` again",
        ) from error


def _remedy(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Say what to do about weights of another kind."""
    whole = {name for name in expected if name.startswith(weights.ENCODER_PREFIX)}
    if whole and set(found) == {name.removeprefix(weights.ENCODER_PREFIX) for name in whole}:
        return "this is an encoder alone: load it into `model.vision_encoder`"
    if weights.has_torch_layers(found):
        return (
            "its layers are torch's nn.TransformerEncoder, whose file does not say whether norms "
            "come first nor which activation it had; if pre-norm and GELU, rename with "
            "`lapvqa.networks.weights.from_torch_layers`"
        )
    return "card.json and the weights must come from one run: `lapvqa run --stage export`"


def _faults(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Name what is missing, unexpected or of another shape; the first few of each."""
    shapes = [
        f"{name} is {list(found[name].shape)}, expected {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    groups = {
        "missing": sorted(set(expected) - set(found)),
        "unexpected": sorted(set(found) - set(expected)),
        "shapes": shapes,
    }
    return [
        f"{kind} {len(names)} of {len(expected)}: {', '.join(names[:_NAMED_AT_MOST])}"
        + (" ..." if len(names) > _NAMED_AT_MOST else "")
        for kind, names in groups.items()
        if names
    ]
