"""The same tensors under other names: wrapped checkpoints, and the ViTs of other libraries.

timm needs no conversion: our names are its names (with ``num_classes=0``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from lapvqa.errors import CheckpointError

ENCODER_PREFIX = "vision_encoder."
"""Where a whole model's state dict holds its encoder."""

# torch.compile and activation checkpointing put a name in the middle, DDP one in front.
_MIDDLE = ("_orig_mod.", "_checkpoint_wrapped_module.")
_FRONT = "module."

_TRANSFORMERS = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
_TRANSFORMERS_BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.o_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}

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


def without_wrappers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``weights`` without what DDP, torch.compile and checkpointing add to the names.

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


def to_transformers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the encoder's tensors to those of ViTModel of transformers 5.

    Its configuration must say ``layer_norm_eps=1e-6`` and ``hidden_act="gelu"``.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if name in _TRANSFORMERS:
            renamed[_TRANSFORMERS[name]] = tensor
            continue
        _, layer, rest = name.split(".", 2)
        part, kind = rest.rsplit(".", 1)
        if part == "attn.qkv":
            for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"layers.{layer}.attention.{letter}_proj.{kind}"] = third
        else:
            renamed[f"layers.{layer}.{_TRANSFORMERS_BLOCK[part]}.{kind}"] = tensor
    return renamed


def has_torch_layers(weights: Mapping[str, Tensor]) -> bool:
    """Say whether the blocks are named as those of torch's nn.TransformerEncoder."""
    return any(_TORCH_LAYER.fullmatch(name) for name in weights)


def from_torch_layers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a ViT around torch's nn.TransformerEncoder to the encoder's names.

    For those who know that its layers are pre-norm with exact GELU and that its norms have
    eps 1e-6: the tensors are the same otherwise, so no loader can tell and none calls this.
    What is outside the blocks is told by shape: one convolution, class token, positions, one norm.
    Raises CheckpointError if anything else is there.
    """
    renamed: dict[str, Tensor] = {}
    others: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        found = _TORCH_LAYER.fullmatch(name)
        if found:
            layer, part, kind = found.groups()
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
        if target in renamed or target not in _TRANSFORMERS:
            raise CheckpointError(
                f"{name} {list(tensor.shape)} has no place in the encoder",
                hint="expected beside the layers: a patch convolution, a class token [1, 1, D], "
                "positions [1, 1 + N, D] and one norm",
            )
        renamed[target] = tensor
    return renamed
