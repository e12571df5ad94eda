"""Vision towers of open_clip: open_clip_config.json with open_clip_model.safetensors.

open_clip itself is not needed: its ViT is ``OpenClipVit``, and towers that it takes from timm are
built by timm. Others (ResNets, custom blocks) are refused by name.

``OpenClipVit`` has open_clip's own tensor names, up to its tokens. Source: open_clip's file format;
the architecture is CLIP's (arXiv:2103.00020) with the options of ``VitSizes``, CoCa's pooler reads
its tokens (arXiv:2205.01917). N patches, D width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lapvqa.errors import CheckpointError
from lapvqa.evaluation.encoders.external import (
    ExternalEncoder,
    find_weights,
    load_exactly,
    read_config,
    square_side,
)
from lapvqa.evaluation.encoders.from_timm import (
    Trunk,
    check_architecture,
    create,
    make_preprocess,
    model_width,
)
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


def open_open_clip(folder: Path) -> ExternalEncoder:
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
    return ExternalEncoder(tower, preprocess, width=width, about=about)


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
    unknown += [f"norm_kwargs.{name}" for name in set(norm) - {"eps"}]
    unknown += [f"act_kwargs.{name}" for name in set(gelu) - {"approximate"}]
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
    numbers: dict[str, Any] = {name: given[name] for name in _SIZES & set(given)}
    for name in {"image_size", "patch_size"} & set(given):
        numbers[name] = square_side(given[name], where=f"{CONFIG}: {name}")
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
    of_trunk = {
        tensor_name.removeprefix("trunk."): tensor
        for tensor_name, tensor in weights.items()
        if tensor_name.startswith("trunk.")
    }
    load_exactly(trunk, of_trunk, name=name)
    return trunk


@dataclass(frozen=True)
class VitSizes:
    """Sizes and options; the defaults are open_clip's.

    ``quick_gelu``: x * sigmoid(1.702 x), as OpenAI's weights need; ``approximate``: of GELU;
    ``scaled``: a learned scale on each residual branch; ``pooler``: CoCa's attentional pooler
    reads the tokens, through a norm of its own.
    """

    image_size: int = 224
    patch_size: int = 16
    width: int = 768
    layers: int = 12
    head_width: int = 64
    mlp_ratio: float = 4.0
    eps: float = 1e-5
    approximate: str = "none"
    quick_gelu: bool = False
    norm_first: bool = True
    scaled: bool = False
    pooler: bool = False


class QuickGelu(nn.Module):
    """The GELU of OpenAI's first weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., D] to [..., D]."""
        return x * torch.sigmoid(1.702 * x)


class Scale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., D] to [..., D]."""
        return x * self.gamma


class ResidualBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, sizes: VitSizes) -> None:
        super().__init__()
        width, hidden = sizes.width, int(sizes.width * sizes.mlp_ratio)
        self.ln_1 = nn.LayerNorm(width, eps=sizes.eps)
        self.attn = nn.MultiheadAttention(width, width // sizes.head_width, batch_first=True)
        self.ls_1 = Scale(width) if sizes.scaled else nn.Identity()
        self.ln_2 = nn.LayerNorm(width, eps=sizes.eps)
        gelu = QuickGelu() if sizes.quick_gelu else nn.GELU(approximate=sizes.approximate)
        layers = [
            ("c_fc", nn.Linear(width, hidden)),
            ("gelu", gelu),
            ("c_proj", nn.Linear(hidden, width)),
        ]
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.ls_2 = Scale(width) if sizes.scaled else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, 1 + N, D] to [B, 1 + N, D]."""
        normed = self.ln_1(x)
        x = x + self.ls_1(self.attn(normed, normed, normed, need_weights=False)[0])
        mapped: Tensor = x + self.ls_2(self.mlp(self.ln_2(x)))
        return mapped


class OpenClipVit(nn.Module):
    """CLIP's ViT up to the norm before its pooled feature."""

    def __init__(self, sizes: VitSizes) -> None:
        super().__init__()
        width, grid = sizes.width, sizes.image_size // sizes.patch_size
        self.conv1 = nn.Conv2d(3, width, sizes.patch_size, stride=sizes.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(grid * grid + 1, width))
        self.ln_pre = nn.LayerNorm(width, eps=sizes.eps) if sizes.norm_first else nn.Identity()
        self.transformer = nn.Module()
        blocks = nn.ModuleList(ResidualBlock(sizes) for _ in range(sizes.layers))
        self.transformer.resblocks = blocks
        norm = nn.LayerNorm(width, eps=sizes.eps)
        if sizes.pooler:
            self.attn_pool = nn.ModuleDict({"ln_k": norm})
        else:
            self.ln_post = norm
        self._norm, self._blocks = [norm], [blocks]  # in lists: the state dict has each once

    def forward(self, images: Tensor) -> Tensor:
        """Map input [B, 3, S, S] to patch tokens [B, N, D], without class token."""
        patches = self.conv1(images).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(images), 1, -1)
        x = self.ln_pre(torch.cat([first, patches], dim=1) + self.positional_embedding)
        for block in self._blocks[0]:
            x = block(x)
        tokens: Tensor = self._norm[0](x)[:, 1:]
        return tokens
