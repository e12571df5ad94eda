"""A ViT of another size or library as weights of the encoder: what a training may begin with.

The blocks must have the encoder's width, depth and heads. Positions are resampled to its grid, the
patch projection to its patch, and the other's normalisation is folded into that projection: at
equal sizes the encoder then computes, of its own input, what the other does of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lapvqa.errors import CheckpointError
from lapvqa.networks.encoder import VisionEncoder
from lapvqa.networks.weights import encoder_part, load_state
from lapvqa.pretrain.vit_names import from_transformers, is_transformers

_PATCH, _BIAS, _POSITIONS = "patch_embed.proj.weight", "patch_embed.proj.bias", "pos_embed"
_HEADS = re.compile(r"head\..*|fc_norm\..*|head_dist\..*|mask_token")
_SCALE = re.compile(r"(blocks\.\d+\.)ls([12])\.gamma")
_SCALED = {"1": "attn.proj", "2": "mlp.fc2"}


def load_other(
    encoder: VisionEncoder,
    weights: Mapping[str, Tensor],
    *,
    name: str,
    ours: tuple[float, float],
    theirs: tuple[Sequence[float], Sequence[float]] | None,
) -> None:
    """Give ``encoder`` the weights of another ViT (ours, timm's or transformers' names).

    ``ours``: mean and deviation of its input; ``theirs``: those of the other's channels, None if
    they are the same. Raises CheckpointError, which calls the weights ``name``, if they do not fit.
    """
    state = {n: t.float() for n, t in _in_our_names(weights).items()}
    for needed, axes in ((_PATCH, 4), (_POSITIONS, 3), (_BIAS, 1)):
        if needed not in state or state[needed].ndim != axes:
            raise CheckpointError(
                f"{name}: expected a ViT with learned positions, found no {needed} in it",
                hint="taken are ViT and DINOv2 of transformers, ViTs of timm, and our own exports; "
                "one with rotary positions (DINOv3) has another form",
            )
    if theirs is not None:
        state[_PATCH], state[_BIAS] = _renormalised(state[_PATCH], state[_BIAS], ours, theirs)
    state[_PATCH] = resample_patches(state[_PATCH], encoder.patch_size)
    state[_POSITIONS] = resample_positions(state[_POSITIONS], encoder.grid, name=name)
    load_state(encoder, state, name=name)


def _in_our_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if is_transformers(weights):
        return from_transformers(weights)
    state = {n: t for n, t in encoder_part(weights).items() if not _HEADS.fullmatch(n)}
    for name in [name for name in state if _SCALE.fullmatch(name)]:
        block, which = _SCALE.fullmatch(name).groups()  # type: ignore[union-attr]
        scale = state.pop(name)
        for kind in ("weight", "bias"):
            target = f"{block}{_SCALED[which]}.{kind}"
            state[target] = state[target] * (scale if kind == "bias" else scale[:, None])
    return state


def _renormalised(
    weight: Tensor, bias: Tensor, ours: tuple[float, float],
    theirs: tuple[Sequence[float], Sequence[float]],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the projection [D, C, P, P] and its bias for input normalised by ``ours``.

    (ours.std * x + ours.mean - mean) / std is what the other would see.
    """
    mean, std = (torch.tensor(list(values)).view(1, -1, 1, 1) for values in theirs)
    shift = (weight * ((ours[0] - mean) / std)).sum(dim=(1, 2, 3))
    return weight * (ours[1] / std), bias + shift


def resample_positions(positions: Tensor, grid: int, *, name: str = "weights") -> Tensor:
    """Map positions [1, 1 + G * G, D] to another grid bicubically; the class token's stays.

    As timm's ``resample_abs_pos_embed``. Raises CheckpointError for no square grid behind a class
    token.
    """
    old = math.isqrt(positions.shape[1] - 1)
    if old * old != positions.shape[1] - 1:
        raise CheckpointError(
            f"{name}: expected positions of a class token and a square grid, found "
            f"{positions.shape[1]}",
            hint="a ViT without class token, or with register tokens, has another form",
        )
    if old == grid:
        return positions
    square = positions[:, 1:].transpose(1, 2).reshape(1, -1, old, old)
    resized = F.interpolate(
        square, size=(grid, grid), mode="bicubic", antialias=True, align_corners=False
    )
    return torch.cat([positions[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)


def resample_patches(weight: Tensor, patch: int) -> Tensor:
    """Map the projection [D, C, P, P] to another patch size.

    Pseudo-inverse resize (FlexiViT, arXiv:2212.08013, 3.4): the new projection gives, of a patch
    that was resized, what the old one gave of the patch. As timm's ``resample_patch_embed``.
    """
    old = weight.shape[-1]
    if old == patch:
        return weight
    basis = torch.eye(old * old).view(-1, 1, old, old)
    resized = F.interpolate(
        basis, size=(patch, patch), mode="bicubic", antialias=True, align_corners=False
    )
    matrix = resized.flatten(1)  # [old * old, patch * patch]
    inverse = torch.linalg.pinv(matrix)  # [patch * patch, old * old]
    resampled: Tensor = weight.flatten(2) @ inverse.T
    return resampled.reshape(*weight.shape[:2], patch, patch)
