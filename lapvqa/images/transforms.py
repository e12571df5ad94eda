"""Stored pixels to the model's input: resizing, normalisation, augmentation.

What is drawn is drawn on the host; all else runs on the device, on whole batches. B images, S
pixels a side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

MEAN, STD = 0.5, 0.25
"""Of pixels in 0..1; constants, so that nothing depends on the archive."""

# Largest change of one image, each way. Positioning and exposure vary so much between studies.
MAX_ROTATION = math.radians(8)
MAX_SHIFT = 0.06  # of the side
MAX_ZOOM = 0.12
MAX_LOG_GAIN = 0.2
MAX_BIAS = 0.08  # of the full range
MAX_LOG_GAMMA = 0.25
DRAWS = 7

# 0 is the order of samples, 2 what parallel prediction hides.
_AUGMENT_STREAM, _MIRROR_STREAM = 1, 3


def to_input(images: Tensor, image_size: int) -> Tensor:
    """Map stored images uint8 [B, 384, 384] to input float32 [B, 1, S, S] by area averaging."""
    pixels = _as_floats(images.unsqueeze(1))
    if pixels.shape[-1] != image_size:
        pixels = F.interpolate(pixels, size=(image_size, image_size), mode="area")
    # In place: pixels are this function's own, and a new array costs more than the arithmetic.
    return pixels.div_(255).sub_(MEAN).div_(STD)


def _as_floats(images: Tensor) -> Tensor:
    if images.device.type != "cpu":
        return images.float()
    # numpy asks for huge pages, torch does not: a third of the time, the rest is page faults.
    return torch.from_numpy(np.empty(images.shape, dtype=np.float32)).copy_(images)


def draw_mirrored(
    *, seed: int, epoch: int, indices: Sequence[int], sided: Sequence[bool]
) -> Tensor:
    """Return which images to mirror, bool [B]: about half of those whose report is not ``sided``.

    An image whose report names a side is never mirrored: the report would no longer be true of it.
    A pure function of (seed, epoch, index) and ``sided``, as ``draw_changes``.
    """
    return torch.tensor(
        [
            not names_side and _stream(seed, epoch, index, _MIRROR_STREAM).random() < 0.5
            for index, names_side in zip(indices, sided, strict=True)
        ]
    )


def mirror(images: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror those of the images [B, 1, S, S] that ``mirrored`` bool [B] names, left to right."""
    return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)


def draw_changes(*, seed: int, epoch: int, indices: Sequence[int]) -> Tensor:
    """Return how much of each change an image gets: float32 [B, 7], in [-1, 1).

    A pure function of (seed, epoch, the image's index), whatever batch it is in.
    """
    return torch.from_numpy(np.stack([_draw(seed, epoch, index) for index in indices]))


def augment(images: Tensor, draws: Tensor) -> Tensor:
    """Rotate, shift, zoom and re-expose input images [B, 1, S, S] by ``draws`` [B, 7]; no flip."""
    angle, shift_x, shift_y, zoom, gain, bias, gamma = draws.unbind(dim=1)
    moved = _move(images, angle, shift_x, shift_y, zoom)
    return _expose(moved, gain, bias, gamma)


def _draw(seed: int, epoch: int, index: int) -> NDArray[np.float32]:
    """Return the image's numbers, uniform in [-1, 1), by a counter-based generator: no state."""
    stream = _stream(seed, epoch, index, _AUGMENT_STREAM)
    return stream.random(DRAWS, dtype=np.float32) * 2 - 1


def _stream(seed: int, epoch: int, index: int, purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, index, epoch, purpose]))


def _move(images: Tensor, angle: Tensor, shift_x: Tensor, shift_y: Tensor, zoom: Tensor) -> Tensor:
    """Sample the images at rotated, scaled and shifted places; outside is black."""
    scale = torch.exp(MAX_ZOOM * zoom)
    cos = torch.cos(MAX_ROTATION * angle) * scale
    sin = torch.sin(MAX_ROTATION * angle) * scale
    # affine_grid's coordinates run from -1 to 1: a shift of the whole side is 2.
    first = torch.stack([cos, -sin, 2 * MAX_SHIFT * shift_x], dim=1)
    second = torch.stack([sin, cos, 2 * MAX_SHIFT * shift_y], dim=1)
    grid = F.affine_grid(
        torch.stack([first, second], dim=1), list(images.shape), align_corners=False
    )
    # grid_sample fills with 0; black is -MEAN / STD here.
    black = -MEAN / STD
    return F.grid_sample(images - black, grid, mode="bilinear", align_corners=False).add_(black)


def _expose(images: Tensor, gain: Tensor, bias: Tensor, gamma: Tensor) -> Tensor:
    """Change gamma, gain and bias of the intensities, which stay within 0..1."""
    exponent, factor, offset = (
        torch.exp(MAX_LOG_GAMMA * gamma).view(-1, 1, 1, 1),
        torch.exp(MAX_LOG_GAIN * gain).view(-1, 1, 1, 1),
        (MAX_BIAS * bias).view(-1, 1, 1, 1),
    )
    pixels = (images * STD).add_(MEAN).clamp_(0, 1)  # its own from here on: in place
    exposed = pixels.pow_(exponent).mul_(factor).add_(offset).clamp_(0, 1)
    return exposed.sub_(MEAN).div_(STD)
