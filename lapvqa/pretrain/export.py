"""The stage export: the trained encoder alone, and the card that says what it is."""

from __future__ import annotations

import io
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from lapvqa import storage
from lapvqa.config import Machine
from lapvqa.data import transforms
from lapvqa.errors import CheckpointError
from lapvqa.layout import Layout
from lapvqa.params import ExportParams, ModelParams, load_params
from lapvqa.pretrain.checkpoint import serialise
from lapvqa.pretrain.device import make_deterministic
from lapvqa.pretrain.files import (
    CARD_FILE,
    ENCODER_FILE,
    MODEL_FILE,
    SAFETENSORS_FILE,
    TRAINING_FILE,
    load_weights,
)
from lapvqa.pretrain.model import VisionEncoder, build_encoder, initial_model
from lapvqa.recorder import Recorder
from lapvqa.schemas import STORED_SIZE

_FILES = {"pt": ENCODER_FILE, "safetensors": SAFETENSORS_FILE}

Counts = dict[str, float | int | str]


def run(params: ExportParams, layout: Layout, machine: Machine, recorder: Recorder) -> Counts:
    """Write the encoder as .pt and .safetensors, and card.json last.

    Raises CheckpointError if a file would not compute what the model computes.
    """
    make_deterministic(threads=machine.workers)
    folder = layout.model_dir(load_params(layout.params).pretrain.objective)
    training = storage.read_json(folder / TRAINING_FILE, made_by="pretrain")
    sizes = ModelParams.model_validate(training["params"]["model"])
    model = initial_model(sizes, seed=0)
    load_weights(model, storage.require(folder / MODEL_FILE, made_by="pretrain"))
    encoder = model.vision_encoder.eval()
    digests = {MODEL_FILE: storage.sha256_file(folder / MODEL_FILE)}
    for form, name in _FILES.items():
        content = encode(encoder, form)
        check_parity(encoder, decode(content, form), sizes, name, params.tolerance)
        storage.write_bytes(folder / name, content)
        digests[name] = storage.sha256_file(folder / name)
        recorder.say(f"{name} computes what {MODEL_FILE} computes")
    storage.write_json(folder / CARD_FILE, card(training, encoder, digests))
    weights = encoder.state_dict()
    num_parameters = sum(tensor.numel() for tensor in weights.values())
    return {"encoder_parameters": num_parameters, "encoder_tensors": len(weights)}


def encode(encoder: VisionEncoder, form: str) -> bytes:
    """Return the encoder's plain state dict as the bytes of a ``pt`` or ``safetensors`` file."""
    weights = encoder.state_dict()
    return serialise(weights) if form == "pt" else safetensors.torch.save(weights)


def decode(content: bytes, form: str) -> dict[str, Tensor]:
    """Read back what ``encode`` made."""
    if form == "pt":
        weights: dict[str, Tensor] = torch.load(io.BytesIO(content), weights_only=True)
        return weights
    return safetensors.torch.load(content)


@torch.no_grad()
def check_parity(
    encoder: VisionEncoder,
    weights: dict[str, Tensor],
    sizes: ModelParams,
    name: str,
    tolerance: float,
) -> None:
    """Raise CheckpointError unless an encoder with ``weights`` computes what ``encoder`` does."""
    again = build_encoder(sizes).eval()
    again.load_state_dict(weights)
    size = sizes.image_size
    images = torch.randn(2, 1, size, size, generator=torch.Generator().manual_seed(0))
    difference = (encoder.patch_tokens(images) - again.patch_tokens(images)).abs().max().item()
    if not difference <= tolerance:
        raise CheckpointError(
            f"{name}: outputs differ by {difference:.1e} from those of {MODEL_FILE}, "
            f"expected at most {tolerance:.0e}",
            hint="nothing was written; run `lapvqa run --stage pretrain` again",
        )


def card(
    training: dict[str, Any], encoder: VisionEncoder, digests: dict[str, str]
) -> dict[str, Any]:
    """Return card.json: all that a reader of the weights must know, and nothing that varies."""
    size = encoder.image_size
    return {
        "objective": training["objective"],
        "model": training["params"]["model"],
        "init_seed": training["params"]["seed"],
        "input": {
            "shape": ["B", "1 or 3", size, size],
            "dtype": "float32",
            "from": f"uint8 [B, {STORED_SIZE}, {STORED_SIZE}], area-averaged to {size} pixels",
            "normalisation": {"divide": 255, "mean": transforms.MEAN, "std": transforms.STD},
        },
        "output": {
            "pooled_tokens": encoder.pooled_grid**2,
            "patch_tokens": encoder.grid**2,
            "width": encoder.width,
        },
        "training": {
            key: training[key]
            for key in ("data_digest", "train_pairs", "validate_pairs", "steps", "best_step",
                        "best_val_loss")
        },
        "sha256": digests,
    }  # fmt: skip
