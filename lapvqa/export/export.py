"""The stage export: the trained encoder in every file format, and the card that describes it.

A file is written only after its content was loaded and gave the tokens of the trained encoder.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from lapvqa import storage
from lapvqa.errors import CheckpointError
from lapvqa.export import standalone
from lapvqa.export.standalone import Compute, published_path
from lapvqa.images import transforms
from lapvqa.job import Counts, Job
from lapvqa.networks.device import ON_CPU, make_deterministic
from lapvqa.networks.encoder import VisionEncoder
from lapvqa.networks.weights import load_weights, serialise
from lapvqa.params import ExportParams, ModelParams
from lapvqa.pretrain.files import (
    CARD_FILE,
    ENCODER_FILE,
    EPOCHS_DIR,
    EXPORTS_DIR,
    GRAPHS_FILE,
    LAST_FILE,
    MODEL_FILE,
    ONNX_FILE,
    PROGRAM_FILE,
    SAFETENSORS_FILE,
    TRAINING_FILE,
)
from lapvqa.pretrain.model import PretrainedModel, build_encoder, initial_model
from lapvqa.schemas import STORED_SIZE

_BATCHES = (1, 3)
"""Images in the batches on which a format is compared: a batch of one is a case of its own."""


def run(params: ExportParams, job: Job) -> Counts:
    """Write the encoder of the last step in every format, and card.json last.

    Raises CheckpointError if a file would not compute what the model computes, ConfigError if
    ``export.onnx`` is set where ONNX cannot be written.
    """
    make_deterministic(threads=job.computing.cpu_threads)
    folder = job.model
    training = storage.read_json(folder / TRAINING_FILE, made_by="pretrain")
    sizes = ModelParams.model_validate(training["params"]["model"])
    model = initial_model(sizes, seed=0, objective=job.objective)
    load_weights(model, storage.require(folder / LAST_FILE, made_by="pretrain"))
    encoder = model.vision_encoder.eval()
    if params.onnx:
        standalone.require_onnx(encoder)
    expected = reference_tokens(encoder)
    written = []
    for name, content, compute, tolerance in export_formats(encoder, sizes, params):
        check_parity(name, compute, expected, tolerance)
        storage.write_bytes(folder / name, content)
        written.append(name)
        job.recorder.say(f"{name} computes what {LAST_FILE} computes")
    _remove_others(folder, written)
    digests = {name: storage.sha256_file(folder / name) for name in _weights(folder, written)}
    graphs = {name: digests.pop(name) for name in written if name.startswith(f"{EXPORTS_DIR}/")}
    # Apart from the card, which the evaluations stand on: another format changes no result.
    described = {
        Path(name).name: {**_about(name, model), "sha256": digest}
        for name, digest in graphs.items()
    }
    storage.write_json(folder / GRAPHS_FILE, described)
    storage.write_json(folder / CARD_FILE, build_card(training, model, digests))
    weights = encoder.state_dict()
    num_parameters = sum(tensor.numel() for tensor in weights.values())
    return {"encoder_parameters": num_parameters, "encoder_tensors": len(weights)}


def export_formats(
    encoder: VisionEncoder, sizes: ModelParams, params: ExportParams
) -> Iterator[tuple[str, bytes, Compute, float]]:
    """Yield each format's file name, its content, what that content computes, and the tolerance."""
    weights = encoder.state_dict()
    content = serialise(weights)
    yield ENCODER_FILE, content, load_pt(content, sizes), params.tolerance
    content = safetensors.torch.save(weights)
    yield SAFETENSORS_FILE, content, load_safetensors(content, sizes), params.tolerance
    program = standalone.trace(encoder)
    content = standalone.to_pt2(program)
    yield PROGRAM_FILE, content, standalone.load_pt2(content), params.tolerance
    if params.onnx:
        content = standalone.to_onnx(program)
        yield ONNX_FILE, content, standalone.load_onnx(content), params.onnx_tolerance


def load_pt(content: bytes, sizes: ModelParams) -> Compute:
    """Return an encoder with the weights of a .pt file."""
    return _encoder_with(torch.load(io.BytesIO(content), weights_only=True), sizes)


def load_safetensors(content: bytes, sizes: ModelParams) -> Compute:
    """Return an encoder with the weights of a .safetensors file."""
    return _encoder_with(safetensors.torch.load(content), sizes)


def _encoder_with(weights: dict[str, Tensor], sizes: ModelParams) -> Compute:
    encoder = build_encoder(sizes).eval()
    encoder.load_state_dict(weights)
    return encoder


@ON_CPU.inference()
def reference_tokens(encoder: VisionEncoder) -> list[tuple[Tensor, Tensor]]:
    """Return batches of noise [B, 1, S, S], each with the tokens that ``encoder`` gives it."""
    size = encoder.image_size
    noise = torch.Generator().manual_seed(0)
    batches = [torch.randn(count, 1, size, size, generator=noise) for count in _BATCHES]
    return [(images, encoder(images)) for images in batches]


@ON_CPU.inference()
def check_parity(
    name: str, compute: Compute, expected: list[tuple[Tensor, Tensor]], tolerance: float
) -> None:
    """Raise CheckpointError unless ``compute`` gives the expected tokens.

    The difference may be ``tolerance`` times the largest token, or times 1 if that is less.
    """
    for images, tokens in expected:
        allowed = tolerance * max(1.0, tokens.abs().max().item())
        difference = (compute(images) - tokens).abs().max().item()
        if not difference <= allowed:
            raise CheckpointError(
                f"{name}: outputs differ by {difference:.1e} from those of {LAST_FILE}, "
                f"expected at most {allowed:.1e}",
                hint="the file was not written; run `lapvqa run --stage pretrain` again",
            )


def _remove_others(folder: Path, written: list[str]) -> None:
    """Delete what an earlier run exported and this one did not."""
    kept = {folder / name for name in written}
    for path in set((folder / EXPORTS_DIR).iterdir()) - kept:
        path.unlink()


def _weights(folder: Path, written: list[str]) -> list[str]:
    """Return the names of all files with weights: those of training, then those written here."""
    epochs = sorted(path.name for path in (folder / EPOCHS_DIR).glob("*.pt"))
    return [MODEL_FILE, LAST_FILE, *(f"{EPOCHS_DIR}/{name}" for name in epochs), *written]


def build_card(
    training: dict[str, Any],
    model: PretrainedModel,
    digests: Mapping[str, str],
) -> dict[str, Any]:
    """Return card.json: what a reader of the weights must know, and nothing that varies by run."""
    encoder = model.vision_encoder
    size, pooled = encoder.image_size, encoder.pooled_grid**2
    output: dict[str, Any] = {
        "pooled_tokens": pooled,
        "patch_tokens": encoder.grid**2,
        "width": encoder.width,
        **model.outputs(),
    }
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
        "output": output,
        "encoder_of": f"step {training['steps']}, the last",
        "files": {name: _about(name, model) for name in digests},
        "training": {
            **{
                key: training[key]
                for key in ("data_digest", "train_pairs", "validate_pairs", "steps", "best_step",
                            "best_val_loss", "began_with")
                if key in training
            },
            **({"parallel_share": training["params"]["parallel_share"]} if model.writes else {}),
        },
        "sha256": digests,
    }  # fmt: skip


def _about(name: str, model: PretrainedModel) -> dict[str, Any]:
    """Describe what a file holds and how it is loaded."""
    encoder = model.vision_encoder
    size = encoder.image_size
    computes = {
        "input": ["B", 1, size, size],
        "output": ["B", encoder.pooled_grid**2, encoder.width],
    }
    if name == PROGRAM_FILE:
        return {"holds": "graph and weights", "load": "torch.export.load(path).module()",
                **computes}  # fmt: skip
    if name == ONNX_FILE:
        return {"holds": "graph and weights", "load": "onnxruntime.InferenceSession(path)",
                "opset": standalone.OPSET, **computes}  # fmt: skip
    if name in (ENCODER_FILE, SAFETENSORS_FILE):
        holds, kind = ["vision_encoder"], published_path(type(encoder))
    else:
        holds = list(dict.fromkeys(name.split(".")[0] for name in model.state_dict()))
        kind = published_path(type(model))
    load = "safetensors.torch.load_file(path)" if name == SAFETENSORS_FILE else (
        "torch.load(path, weights_only=True)"
    )  # fmt: skip
    return {"holds": holds, "class": kind, "load": f"load_state_dict({load})"}
