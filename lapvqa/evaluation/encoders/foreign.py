"""A frozen encoder made of another library's vision tower and preprocessing."""

from __future__ import annotations

import math

from torch import Tensor, nn

from lapvqa.errors import CheckpointError
from lapvqa.evaluation.encoders.preprocessing import Preprocess
from lapvqa.evaluation.image_encoder import ImageEncoder


class ForeignEncoder(ImageEncoder):
    """``tower`` maps input [B, C, S, S] to patch tokens [B, G * G, D], by rows."""

    def __init__(self, tower: nn.Module, preprocess: Preprocess, *, width: int, about: str) -> None:
        super().__init__()
        self.tower, self.preprocess = tower, preprocess
        self.width = width
        self.about = f"{about}; {preprocess.about}; patch tokens after the last norm"

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the patch tokens, as ``patches``: these encoders have no pooled grid."""
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
