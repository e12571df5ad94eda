"""The encoder as a model repository of others: transformers and timm load it without this code.

A folder in the form that ``save_pretrained`` and Hugging Face's hub have: config.json,
model.safetensors and preprocessor_config.json are transformers' ViTModel, timm/ is the same
encoder for timm, adaptation.json says how to go on from it. README.md is the model card.
Equal weights give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch

from lapvqa.export.export import check_parity, reference_tokens
from lapvqa.images import transforms
from lapvqa.networks.encoder import NORM_EPS, VisionEncoder
from lapvqa.params import ModelParams, RecipeParams
from lapvqa.pretrain.files import ADAPTATION_FILE
from lapvqa.pretrain.model import build_encoder
from lapvqa.pretrain.vit_names import from_transformers, to_transformers
from lapvqa.schemas import CONTENT_SIZE, STORED_SIZE

CONFIG, WEIGHTS, PROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"
TIMM, README = "timm", "README.md"
_USAGE = "usage.md"
_BOX = 4
"""Pillow's number of the filter that averages areas."""


def contents(
    encoder: VisionEncoder, sizes: ModelParams, training: Mapping[str, Any], recipe: RecipeParams
) -> dict[str, bytes]:
    """Return path -> content of every file but README.md.

    ``training``: training.json of its pretraining; ``recipe``: how the evaluations train a head.
    Raises CheckpointError if the renamed weights would compute something else.
    """
    weights = {name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}
    renamed = to_transformers(weights)
    back = build_encoder(sizes).eval()
    back.load_state_dict(from_transformers(renamed))
    check_parity(WEIGHTS, back, reference_tokens(encoder), 0.0)
    files = {
        WEIGHTS: safetensors.torch.save(renamed, {"format": "pt"}),
        f"{TIMM}/{WEIGHTS}": safetensors.torch.save(weights, {"format": "pt"}),
    }
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return {
        **files,
        CONFIG: _json(_config(sizes)),
        PROCESSOR: _json(_processor(sizes)),
        f"{TIMM}/{CONFIG}": _json(_timm(sizes)),
        ADAPTATION_FILE: _json({**_adaptation(encoder, training, recipe), "sha256": digests}),
    }


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def _config(sizes: ModelParams) -> dict[str, Any]:
    return {
        "architectures": ["ViTModel"],
        "model_type": "vit",
        "hidden_size": sizes.width,
        "num_hidden_layers": sizes.depth,
        "num_attention_heads": sizes.heads,
        "intermediate_size": 4 * sizes.width,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": NORM_EPS,
        "image_size": sizes.image_size,
        "patch_size": sizes.patch_size,
        "num_channels": 3,
        "qkv_bias": True,
        "dtype": "float32",
        "torch_dtype": "float32",
    }


def _processor(sizes: ModelParams) -> dict[str, Any]:
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": sizes.image_size, "width": sizes.image_size},
        "resample": _BOX,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [transforms.MEAN] * 3,
        "image_std": [transforms.STD] * 3,
    }


def _timm(sizes: ModelParams) -> dict[str, Any]:
    return {
        "architecture": "vit_base_patch16_224",  # a plain ViT; model_args has the sizes
        "num_classes": 0,
        "num_features": sizes.width,
        "global_pool": "token",
        "model_args": {
            "img_size": sizes.image_size,
            "patch_size": sizes.patch_size,
            "embed_dim": sizes.width,
            "depth": sizes.depth,
            "num_heads": sizes.heads,
        },
        "pretrained_cfg": {
            "input_size": [3, sizes.image_size, sizes.image_size],
            "fixed_input_size": True,
            "interpolation": "box",
            "crop_pct": 1.0,
            "mean": [transforms.MEAN] * 3,
            "std": [transforms.STD] * 3,
            "num_classes": 0,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }


def _adaptation(
    encoder: VisionEncoder, training: Mapping[str, Any], recipe: RecipeParams
) -> dict[str, Any]:
    """Return how to go on from the weights: what goes in and out, and the rates that were used."""
    trained = training["params"]
    return {
        "input": {
            "film": f"greys as a screen shows them, longer side {CONTENT_SIZE} by area averaging, "
            f"the shorter one centred, at the upper left of {STORED_SIZE} x {STORED_SIZE}, black "
            "around",
            "image_size": encoder.image_size,
            "channels": "3 equal ones",
            "rescale": 1 / 255,
            "mean": transforms.MEAN,
            "std": transforms.STD,
        },
        "output": {
            "class_token": "first; it takes part and is not used",
            "patch_tokens": [encoder.grid, encoder.grid, encoder.width],
            "pooled_tokens": [encoder.pooled_grid, encoder.pooled_grid, encoder.width],
            "pooling": "adaptive average of the grid of patch tokens",
            "feature": "mean of the pooled tokens",
        },
        "pretraining": {
            "objective": training["objective"],
            "steps": training["steps"],
            "train_pairs": training["train_pairs"],
            **{name: trained[name] for name in ("lr", "weight_decay", "batch_size", "flip")},
            # Whom it has seen: an evaluation compares it with its own test images.
            **{name: training[name] for name in ("data_digest", "began_with") if name in training},
        },
        "frozen": {
            "features": "compute once, train the head alone",
            "head_lr": recipe.lr,
            "epochs": recipe.epochs,
        },
        "fine_tuning": {
            "encoder_lr": recipe.encoder_lr,
            "head_lr": recipe.lr,
            "optimizer": "AdamW",
            "weight_decay": recipe.weight_decay,
            "warmup_share": recipe.warmup_share,
            "schedule": "cosine to 0",
            "grad_clip": recipe.grad_clip,
            "batch_size": recipe.batch_size,
            "augmentation": {
                "rotation_degrees": round(transforms.MAX_ROTATION * 57.29578, 3),
                "shift_share": transforms.MAX_SHIFT,
                "zoom_share": transforms.MAX_ZOOM,
                "mirror": "never where the target names a side",
            },
        },
        "other_sizes": {
            "image_size": "resample the grid of position_embeddings bicubically; the first one, of "
            "the class token, stays",
            "patch_size": "resample the patch projection",
        },
    }


def front_matter(license: str) -> list[str]:
    """Return the lines of the hub's metadata but the results."""
    return [
        f"license: {license}",
        "library_name: transformers",
        "pipeline_tag: image-feature-extraction",
        "tags:",
        "- chest-x-ray",
        "- radiology",
        "- vit",
        "- timm",
    ]


def usage(sizes: ModelParams) -> str:
    """Return what a reader of README.md does with the folder, and what no processor can do."""
    text = Path(__file__).with_name(_USAGE).read_text(encoding="utf-8")
    return text.format(
        stored=STORED_SIZE, content=CONTENT_SIZE, grid=sizes.image_size // sizes.patch_size,
        pooled=sizes.pooled_grid, size=sizes.image_size,
    )  # fmt: skip
