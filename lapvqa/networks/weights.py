"""Weights on disk: files of state dicts read safely, whatever wrapped or renamed their tensors.

Accepted forms: a plain state dict as .pt or .safetensors; one under ``model_state`` or
``encoder_state``; with the names that DDP and torch.compile give; a whole model where its encoder
is wanted. Files never run code: all are read with ``weights_only=True``.

timm needs no conversion: our names are its names (with ``num_classes=0``).
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from lapvqa.errors import CheckpointError
from lapvqa.networks.encoder import VisionEncoder

ENCODER_PREFIX = "vision_encoder."
"""Where a whole model's state dict holds its encoder."""

_WRAPPERS = ("model_state", "encoder_state")
_NAMED_AT_MOST = 3

# torch.compile and activation checkpointing put a name in the middle, DDP one in front.
_MIDDLE = ("_orig_mod.", "_checkpoint_wrapped_module.")
_FRONT = "module."

_AROUND_BLOCKS = {
    "cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias", "norm.weight",
    "norm.bias",
}  # fmt: skip

_TORCH_LAYER = re.compile(
    r"(?:.*\.)?layers\.(\d+)\."
    r"(self_attn\.in_proj_|self_attn\.out_proj\.|linear1\.|linear2\.|norm1\.|norm2\.)(weight|bias)"
)
_TORCH_BLOCK = {
    "self_attn.in_proj_": "attn.qkv",
    "self_attn.out_proj.": "attn.proj",
    "linear1.": "mlp.fc1",
    "linear2.": "mlp.fc2",
    "norm1.": "norm1",
    "norm2.": "norm2",
}


def serialise(value: Any) -> bytes:
    """Return ``torch.save``'s bytes; through memory, because a file's name becomes part of them."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a weights file into ``module``; CheckpointError says what does not fit.

    Where ``module`` is an encoder and the file a whole model, its encoder is taken.
    """
    loaded = read_weights(path)
    if isinstance(module, VisionEncoder):
        loaded = encoder_part(loaded)
    load_state(module, loaded, name=path.name)


def load_state(module: nn.Module, loaded: Mapping[str, Tensor], *, name: str) -> None:
    """Load a state dict, which errors call ``name``, into ``module``; raises CheckpointError."""
    expected = module.state_dict()
    faults = _faults(expected, loaded)
    if faults:
        raise CheckpointError(
            f"{name} does not fit {type(module).__name__}: {'; '.join(faults)}",
            hint=_remedy(expected, loaded),
        )
    module.load_state_dict(loaded)


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
    return without_wrappers(value)


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
    """Describe the value in place of a state dict; names only, never values."""
    if not isinstance(value, Mapping):
        return type(value).__name__
    names = [str(name) for name in value]
    more = " ..." if len(names) > _NAMED_AT_MOST else ""
    return f"{type(value).__name__} with {', '.join(names[:_NAMED_AT_MOST]) or 'nothing'}{more}"


def _remedy(expected: Mapping[str, Tensor], loaded: Mapping[str, Tensor]) -> str:
    """Return what to do about weights of another kind."""
    whole = {name for name in expected if name.startswith(ENCODER_PREFIX)}
    if whole and set(loaded) == {name.removeprefix(ENCODER_PREFIX) for name in whole}:
        return "this is an encoder alone: load it into `model.vision_encoder`"
    if has_torch_layers(loaded):
        return (
            "its layers are torch's nn.TransformerEncoder, whose file does not say whether norms "
            "come first nor which activation it had; if pre-norm and GELU, rename with "
            "`lapvqa.networks.weights.from_torch_layers`"
        )
    return "card.json and the weights must come from one run: `lapvqa run --stage export`"


def _faults(expected: Mapping[str, Tensor], loaded: Mapping[str, Tensor]) -> list[str]:
    """Name the tensors that are missing, unexpected or of another shape; the first few of each."""
    shapes = [
        f"{name} is {list(loaded[name].shape)}, expected {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in loaded and loaded[name].shape != tensor.shape
    ]
    groups = {
        "missing": sorted(set(expected) - set(loaded)),
        "unexpected": sorted(set(loaded) - set(expected)),
        "shapes": shapes,
    }
    return [
        f"{kind} {len(names)} of {len(expected)}: {', '.join(names[:_NAMED_AT_MOST])}"
        + (" ..." if len(names) > _NAMED_AT_MOST else "")
        for kind, names in groups.items()
        if names
    ]


def without_wrappers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``weights`` without the parts that DDP, torch.compile and checkpointing add to names.

    Raises CheckpointError if two tensors would get one name.
    """
    in_front = bool(weights) and all(name.startswith(_FRONT) for name in weights)
    plain = {}
    for name, tensor in weights.items():
        short = name.removeprefix(_FRONT) if in_front else name
        for part in _MIDDLE:
            short = short.replace(part, "")
        plain[short] = tensor
    if len(plain) < len(weights):
        raise CheckpointError(
            f"{len(weights)} tensors have only {len(plain)} names without their wrappers",
            hint="the file mixes a wrapped and a plain model; save the plain one alone",
        )
    return plain


def encoder_part(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the encoder of a whole model's state dict; other state dicts as they are."""
    part = {
        name.removeprefix(ENCODER_PREFIX): tensor
        for name, tensor in weights.items()
        if name.startswith(ENCODER_PREFIX)
    }
    return part or dict(weights)


def has_torch_layers(weights: Mapping[str, Tensor]) -> bool:
    """Tell whether the blocks are named as those of torch's nn.TransformerEncoder."""
    return any(_TORCH_LAYER.fullmatch(name) for name in weights)


def from_torch_layers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a ViT around torch's nn.TransformerEncoder to the encoder's names.

    For those who know that its layers are pre-norm with exact GELU and that its norms have
    eps 1e-6: the tensors are the same otherwise, so no loader can tell and none calls this.
    Tensors outside the blocks are told apart by shape: convolution, class token, positions, norm.
    Raises CheckpointError if anything else is there.
    """
    renamed: dict[str, Tensor] = {}
    others: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        match = _TORCH_LAYER.fullmatch(name)
        if match:
            layer, part, kind = match.groups()
            renamed[f"blocks.{layer}.{_TORCH_BLOCK[part]}.{kind}"] = tensor
        else:
            others[name] = tensor
    return renamed | _around_torch_layers(others)


def _around_torch_layers(others: Mapping[str, Tensor]) -> dict[str, Tensor]:
    dimensions = {4: "patch_embed.proj.weight", 3: "pos_embed", 1: "norm.weight"}
    renamed = {}
    for name, tensor in others.items():
        target = dimensions.get(tensor.ndim, "")
        stem = name.removesuffix("bias")
        if tensor.ndim == 3 and tensor.shape[1] == 1:
            target = "cls_token"
        elif tensor.ndim == 1 and others.get(f"{stem}weight", tensor).ndim == 4:
            target = "patch_embed.proj.bias"
        elif tensor.ndim == 1 and name.endswith("bias"):
            target = "norm.bias"
        if target in renamed or target not in _AROUND_BLOCKS:
            raise CheckpointError(
                f"{name} {list(tensor.shape)} has no place in the encoder",
                hint="expected beside the layers: a patch convolution, a class token [1, 1, D], "
                "positions [1, 1 + N, D] and one norm",
            )
        renamed[target] = tensor
    return renamed
