"""An encoder of another library: the files of its folder, its preprocessing, its patch tokens.

The input is made of stored pixels without PIL. Resizing along one axis is linear, so it is a
matrix; the matrix is made by the library itself, applied to the identity. In float64 the products
are exact: Pillow's weights are multiples of 2**-22 and levels have 8 bits. So the input has the
same bits on every device, and they are Pillow's. B images, C channels, S pixels a side of the
input.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from lapvqa.errors import CheckpointError
from lapvqa.evaluation.image_encoder import ImageEncoder
from lapvqa.schemas import STORED_SIZE

FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Names of Pillow's filters; a filter's place is its number (``resample``)."""

_PILLOWS_BITS, _FINE_BITS = 22, 30


class ExternalEncoder(ImageEncoder):
    """``tower`` maps input [B, C, S, S] to patch tokens [B, G * G, D], by rows."""

    def __init__(self, tower: nn.Module, preprocess: Preprocess, *, width: int, about: str) -> None:
        super().__init__()
        self.tower, self.preprocess = tower, preprocess
        self.width = width
        self.about = f"{about}; {preprocess.about}; patch tokens after the last norm"

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the patch tokens, as ``patches`` does: these encoders have no pooled grid."""
        return self.patches(pixels)

    def patches(self, pixels: Tensor) -> Tensor:
        """Return the patch tokens; CheckpointError if they are no square grid of this width."""
        tokens: Tensor = self.tower(self.preprocess(pixels))
        count, width = tokens.shape[1:]
        if math.isqrt(count) ** 2 != count or width != self.width:
            raise CheckpointError(
                f"expected a square grid of tokens of width {self.width}, found {count} tokens of "
                f"width {width}",
                hint="only encoders whose tokens are a grid over a square image are judged",
            )
        return tokens

    def weights(self) -> dict[str, Tensor]:
        """Return the weights of the tower."""
        return dict(self.tower.state_dict())


class Preprocess(nn.Module):
    """Map stored images uint8 [B, 384, 384] to input float32 [B, C, S, S].

    ``matrix`` [S, 384] resizes one axis. ``whole_levels``: grey levels are rounded after each
    axis, as Pillow does. Then (level * factor - mean) / std per channel. ``about``: in words.
    """

    matrix: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        matrix: NDArray[np.float64],
        *,
        mean: Sequence[float],
        std: Sequence[float],
        factor: float = 1 / 255,
        whole_levels: bool = True,
        about: str = "",
    ) -> None:
        super().__init__()
        self.size, self.factor, self.whole_levels = len(matrix), factor, whole_levels
        self.about = f"whole stored square to {self.size} px, {about}, no crop"
        # Not weights: two encoders of equal weights have equal digests of weights.
        for name, values in (("mean", mean), ("std", std)):
            column = torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(name, column, persistent=False)
        self.register_buffer("matrix", torch.from_numpy(matrix.copy()), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Resize, repeat the grey channel, normalise."""
        levels = pixels.double()
        if self.size != STORED_SIZE:
            levels = self._whole(levels @ self.matrix.T)
            levels = self._whole(self.matrix @ levels)
        return (levels.float().unsqueeze(1) * self.factor - self.mean) / self.std

    def _whole(self, levels: Tensor) -> Tensor:
        return levels.add(0.5).floor().clamp(0, 255) if self.whole_levels else levels


def resize_with_pillow(size: int, resample: object, *, where: str) -> NDArray[np.float64]:
    """Return [size, 384] of a Pillow filter, given by number or name; CheckpointError if unknown.

    Weights are rounded half away from zero, as Pillow does for pictures of 8 bits.
    """
    identity = Image.fromarray(np.eye(STORED_SIZE, dtype=np.int32) << _FINE_BITS)
    resized = identity.resize((STORED_SIZE, size), filter_number(resample, where=where))
    fine = np.asarray(resized, dtype=np.float64) * 2.0 ** (_PILLOWS_BITS - _FINE_BITS)
    rounded: NDArray[np.float64] = np.trunc(fine + np.copysign(0.5, fine)) * 2.0**-_PILLOWS_BITS
    return rounded


def resize_as_owlv2(size: int) -> NDArray[np.float64]:
    """Return [size, 384] of OWLv2's resizing: a Gaussian against aliasing, then linear.

    Source: scikit-image's ``resize``, which the authors and transformers use.
    """
    from scipy import ndimage  # half a second that one encoder alone needs

    shrink = STORED_SIZE / size
    levels = np.eye(STORED_SIZE)
    if shrink > 1:
        levels = ndimage.gaussian_filter1d(levels, (shrink - 1) / 2, axis=0, mode="mirror")
    zoomed = ndimage.zoom(levels, (1 / shrink, 1), order=1, mode="mirror", grid_mode=True)
    return np.asarray(zoomed, dtype=np.float64)


def filter_number(resample: object, *, where: str) -> int:
    """Return the number of a filter; CheckpointError for one that Pillow does not have."""
    if isinstance(resample, str) and resample in FILTERS:
        return FILTERS.index(resample)
    if isinstance(resample, int) and resample in range(len(FILTERS)):
        return int(resample)
    known = ", ".join(f"{number} {name}" for number, name in enumerate(FILTERS))
    raise CheckpointError(
        f"expected a filter for resizing in {where}, found {resample!r}", hint=f"known: {known}"
    )


def square_side(size: object, *, where: str) -> int:
    """Return the side of a square that a configuration gives in one of the libraries' forms.

    Accepted: S, [S, S], [C, S, S], {"height": S, "width": S}, {"shortest_edge": S}.
    """
    sides: list[object] = [size]
    if isinstance(size, dict):
        names = ("shortest_edge",) if "shortest_edge" in size else ("height", "width")
        sides = [size.get(name) for name in names]
    elif isinstance(size, list | tuple):
        sides = list(size[-2:])
    first = sides[0]
    if not isinstance(first, int) or first < 1 or any(side != first for side in sides):
        raise CheckpointError(
            f"expected the side of a square in {where}, found {size!r}",
            hint="stored images are square: only encoders of square images are judged",
        )
    return first


def channel_values(values: object, *, channels: int, where: str) -> list[float]:
    """Return one number per channel; CheckpointError for anything else."""
    listed = list(values) if isinstance(values, list | tuple) else [values] * channels
    numbers = [float(number) for number in listed if isinstance(number, int | float)]
    if len(listed) != channels or len(numbers) != channels:
        raise CheckpointError(
            f"expected {channels} numbers in {where}, found {values!r}",
            hint="the configuration must give one mean and one std per channel of the model",
        )
    return numbers


def read_config(path: Path) -> dict[str, Any]:
    """Return a JSON object; CheckpointError if the file is missing, damaged or something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"expected {path.name} in the folder {path.parent.name}, found "
            f"{file_names(path.parent)}",
            hint="copy the whole folder of the checkpoint, as its library saves it",
        ) from None
    except ValueError as error:
        raise CheckpointError(
            f"expected JSON in {path.name}, could not read it", hint="get the file again"
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(
            f"expected a JSON object in {path.name}, found {type(value).__name__}",
            hint="get the file again",
        )
    return value


def find_weights(folder: Path, names: Sequence[str]) -> Path:
    """Return the first of ``names`` that is there; CheckpointError if none is."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        f"expected weights in the folder {folder.name!r}, found {file_names(folder)}",
        hint=f"accepted: {', '.join(names)}",
    )


def file_names(folder: Path, *, at_most: int = 8) -> str:
    """Name the first files of a folder, for a message."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    more = " ..." if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more if names else "nothing"


def load_exactly(module: nn.Module, weights: dict[str, Tensor], *, name: str) -> None:
    """Load weights that fit tensor by tensor; CheckpointError names the first that do not."""
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        lines = [" ".join(line.split()) for line in str(error).splitlines()[1:3]]
        raise CheckpointError(
            f"{name} does not fit its configuration: {'; '.join(lines)[:400]}",
            hint="configuration and weights must come from one checkpoint",
        ) from error
