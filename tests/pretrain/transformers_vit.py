"""The encoder's weights under the names of transformers' ViTModel, for comparison with it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

AROUND_BLOCKS = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.o_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def to_transformers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the encoder's tensors to those of ViTModel of transformers 5.

    Its configuration must say ``layer_norm_eps=1e-6`` and ``hidden_act="gelu"``.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if name in AROUND_BLOCKS:
            renamed[AROUND_BLOCKS[name]] = tensor
            continue
        _, layer, rest = name.split(".", 2)
        part, kind = rest.rsplit(".", 1)
        if part == "attn.qkv":
            for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"layers.{layer}.attention.{letter}_proj.{kind}"] = third
        else:
            renamed[f"layers.{layer}.{BLOCK[part]}.{kind}"] = tensor
    return renamed
