"""Vision towers of open_clip: open_clip_config.json with open_clip_model.safetensors.

open_clip itself is not needed: its ViT is ``OpenClipVit``, and towers that it takes from timm are
built by timm. Others (ResNets, custom blocks) are refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lapvqa.errors import CheckpointError
from lapvqa.evaluation.encoders.folders import find_weights, load_exactly, read_config
from lapvqa.evaluation.encoders.foreign import ForeignEncoder
from lapvqa.evaluation.encoders.from_timm import (
    Trunk,
    check_architecture,
    create,
    make_preprocess,
    model_width,
)
from lapvqa.evaluation.encoders.open_clip_vit import OpenClipVit, VitSizes
from lapvqa.evaluation.encoders.preprocessing import square_side
from lapvqa.networks.weights import read_weights

CONFIG = "open_clip_config.json"
WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)

# open_clip's defaults where the file is silent.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)

_SIZES = {"image_size", "patch_size", "width", "layers", "head_width", "mlp_ratio"}
_OPTIONS = {"ls_init_value", "attentional_pool", "no_ln_pre", "norm_kwargs", "act_kwargs"}
# What comes after the tokens, happens in training only, or is in the weights.
_WITHOUT_EFFECT = {
    "attn_pooler_queries", "attn_pooler_heads", "pool_type", "final_ln_after_pool",
    "output_tokens", "patch_dropout", "pos_embed_type", "global_average_pool",
}  # fmt: skip


def open_open_clip(folder: Path) -> ForeignEncoder:
    """Open the vision tower of an open_clip folder.

    Raises CheckpointError for a tower of another kind, a missing or damaged file, or weights that
    do not fit; MissingPackageError where the tower is timm's and timm is not installed.
    """
    config = read_config(folder / CONFIG)
    model = _section(config, "model_cfg")
    vision = _section(model, "vision_cfg")
    path = find_weights(folder, WEIGHTS)
    tower, width, about = _tower(model, vision, _visual(path), name=path.name)
    settings = config.get("preprocess_cfg") or {}
    preprocess = make_preprocess(
        vision.get("image_size", 224),
        settings.get("interpolation") or "bicubic",
        settings.get("mean") or _MEAN,
        settings.get("std") or _STD,
        channels=3,
    )
    return ForeignEncoder(tower, preprocess, width=width, about=about)


def _section(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = config.get(name)
    if not isinstance(section, dict):
        raise CheckpointError(
            f"expected {name} in {CONFIG}, found {', '.join(config) or 'nothing'}",
            hint="the file must be the one that open_clip writes beside its weights",
        )
    return section


def _visual(path: Path) -> dict[str, Tensor]:
    weights = {
        name.removeprefix("visual."): tensor.float()
        for name, tensor in read_weights(path).items()
        if name.startswith("visual.")
    }
    if not weights:
        raise CheckpointError(
            f"expected tensors named visual.* in {path.name}, found none",
            hint="the file must hold a whole open_clip model",
        )
    return weights


def _tower(
    model: Mapping[str, Any], vision: Mapping[str, Any], weights: dict[str, Tensor], *, name: str
) -> tuple[nn.Module, int, str]:
    if vision.get("timm_model_name"):
        trunk = _timm_trunk(model, vision, weights, name=name)
        return Trunk(trunk), model_width(trunk), f"open_clip with timm {vision['timm_model_name']}"
    sizes = read_sizes(model, vision)
    with torch.random.fork_rng(devices=[]):
        tower = OpenClipVit(sizes)
    load_exactly(tower, _until_tokens(weights, pooler=sizes.pooler), name=name)
    kind = "CoCa" if sizes.pooler else "CLIP"
    about = f"open_clip {kind} ViT, width {sizes.width}, patch {sizes.patch_size}"
    return tower.eval(), sizes.width, about


def read_sizes(model: Mapping[str, Any], vision: Mapping[str, Any]) -> VitSizes:
    """Return the sizes of a plain ViT; CheckpointError names any option that is not known."""
    given = {name: value for name, value in vision.items() if value not in (None, False)}
    unknown = sorted(
        name
        for name in set(given) - _SIZES - _OPTIONS - _WITHOUT_EFFECT
        if not name.startswith("timm_")
    )
    norm, gelu = given.get("norm_kwargs", {}), given.get("act_kwargs", {})
    unknown += [f"norm_kwargs.{one}" for one in set(norm) - {"eps"}]
    unknown += [f"act_kwargs.{one}" for one in set(gelu) - {"approximate"}]
    if not isinstance(given.get("layers", 12), int):
        unknown.append("layers (a ResNet)")
    if isinstance(given.get("attentional_pool"), str):
        unknown.append(f"attentional_pool {given['attentional_pool']}")
    if unknown:
        raise CheckpointError(
            f"{CONFIG}: vision_cfg has {', '.join(unknown)}, which is no plain ViT's",
            hint="accepted: CLIP's and CoCa's ViT, and towers of timm; save others as a timm or "
            "transformers folder",
        )
    numbers: dict[str, Any] = {one: given[one] for one in _SIZES & set(given)}
    for one in {"image_size", "patch_size"} & set(given):
        numbers[one] = square_side(given[one], where=f"{CONFIG}: {one}")
    return VitSizes(
        **numbers,
        eps=norm.get("eps", 1e-5),
        approximate=gelu.get("approximate", "none"),
        quick_gelu=bool(model.get("quick_gelu")),
        norm_first=not given.get("no_ln_pre", False),
        scaled="ls_init_value" in given,
        pooler=bool(given.get("attentional_pool")),
    )


def _until_tokens(weights: Mapping[str, Tensor], *, pooler: bool) -> dict[str, Tensor]:
    """Leave out what comes after the tokens: the projection, and CoCa's pooler behind its norm."""
    after = ("proj",) + (("ln_post.", "attn_pool.") if pooler else ())
    return {
        name: tensor
        for name, tensor in weights.items()
        if not name.startswith(after) or name.startswith("attn_pool.ln_k.")
    }


def _timm_trunk(
    model: Mapping[str, Any], vision: Mapping[str, Any], weights: dict[str, Tensor], *, name: str
) -> nn.Module:
    """Build timm's model as open_clip does; what open_clip puts behind it is left out."""
    architecture = check_architecture(vision["timm_model_name"])
    pool, proj = vision.get("timm_pool", "avg"), vision.get("timm_proj", "linear")
    if pool in ("abs_attn", "rot_attn"):
        pool = ""
    # Without a projection of its own, open_clip lets timm's classifier project.
    classes = model["embed_dim"] if not proj else 0
    trunk = create(architecture, name=name, pretrained=False, num_classes=classes, global_pool=pool)
    found = {
        one.removeprefix("trunk."): tensor
        for one, tensor in weights.items()
        if one.startswith("trunk.")
    }
    load_exactly(trunk, found, name=name)
    return trunk
