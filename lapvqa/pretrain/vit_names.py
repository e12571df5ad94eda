"""The encoder's tensors under the names of transformers' ViTModel, and back.

Written are the names of the files that ``save_pretrained`` leaves, which every version of
transformers reads. Read are those, with or without a prefix such as ``vit.``, and DINOv2's, whose
layer scale is a factor of the projection before it: it is multiplied in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_AROUND = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
_PARTS = {
    "norm1": ("layernorm_before", "norm1"),
    "norm2": ("layernorm_after", "norm2"),
    "attn.proj": ("attention.output.dense",),
    "mlp.fc1": ("intermediate.dense", "mlp.fc1"),
    "mlp.fc2": ("output.dense", "mlp.fc2"),
}
"""Ours -> that of ViTModel, that of Dinov2Model if it has another."""
_QKV = ("query", "key", "value")
_ATTENTION = "attention.attention"
_LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias|lambda1)")
_SCALED = {"layer_scale1": "attn.proj", "layer_scale2": "mlp.fc2"}
_IGNORED = re.compile(r"embeddings\.mask_token|pooler\..*")


def to_transformers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the encoder's tensors as a file of ViTModel has them, in the order of names."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if name in _AROUND:
            renamed[_AROUND[name]] = tensor.contiguous()
            continue
        _, layer, rest = name.split(".", 2)
        part, kind = rest.rsplit(".", 1)
        stem = f"encoder.layer.{layer}"
        if part == "attn.qkv":
            for which, third in zip(_QKV, tensor.chunk(3), strict=True):
                renamed[f"{stem}.{_ATTENTION}.{which}.{kind}"] = third.contiguous()
        else:
            renamed[f"{stem}.{_PARTS[part][0]}.{kind}"] = tensor.contiguous()
    return dict(sorted(renamed.items()))


def is_transformers(weights: Mapping[str, Tensor]) -> bool:
    """Tell whether the tensors are named as those of ViTModel, or of a model that holds one."""
    return any(name.endswith(_AROUND["patch_embed.proj.weight"]) for name in weights)


def from_transformers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a ViTModel or Dinov2Model under the encoder's names.

    A pooler and a mask token are left out, and what stands beside the ViT in a model that holds
    it; what else has no place keeps its name.
    """
    cls_token = _AROUND["cls_token"]
    prefix = next(name for name in weights if name.endswith(cls_token)).removesuffix(cls_token)
    bare = {
        name.removeprefix(prefix): tensor
        for name, tensor in weights.items()
        if name.startswith(prefix)
    }
    ours = {theirs: own for own, theirs in _AROUND.items()}
    ours |= {theirs: own for own, names in _PARTS.items() for theirs in names}
    renamed: dict[str, Tensor] = {}
    thirds: dict[tuple[str, str], dict[str, Tensor]] = {}
    scales: dict[str, Tensor] = {}
    for name, tensor in bare.items():
        match = _LAYER.fullmatch(name)
        if match is None:
            if not _IGNORED.fullmatch(name):
                renamed[ours.get(name, name)] = tensor
            continue
        layer, part, kind = match.groups()
        if part in _SCALED:
            scales[f"blocks.{layer}.{_SCALED[part]}"] = tensor
        elif part.removeprefix(f"{_ATTENTION}.") in _QKV:
            thirds.setdefault((layer, kind), {})[part.rpartition(".")[2]] = tensor
        else:
            renamed[f"blocks.{layer}.{ours.get(part, part)}.{kind}"] = tensor
    for (layer, kind), parts in thirds.items():
        if set(parts) == set(_QKV):
            renamed[f"blocks.{layer}.attn.qkv.{kind}"] = torch.cat([parts[key] for key in _QKV])
    for stem, scale in scales.items():
        for kind in ("weight", "bias"):
            tensor = renamed[f"{stem}.{kind}"]
            renamed[f"{stem}.{kind}"] = tensor * (scale if kind == "bias" else scale[:, None])
    return renamed
