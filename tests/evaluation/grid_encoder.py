"""An encoder whose tokens say how bright each cell of a grid is, and where the cell lies."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lapvqa.evaluation.image_encoder import ImageEncoder
from lapvqa.images.transforms import to_input

GRID = 6


class Brightness(ImageEncoder):
    width = 3
    about = "brightness of 36 cells"

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.patches(pixels)

    def patches(self, pixels: Tensor) -> Tensor:
        cells = nn.functional.adaptive_avg_pool2d(to_input(pixels, 384), GRID)
        cells = cells.flatten(2).transpose(1, 2)
        line = torch.linspace(-1, 1, GRID)
        places = torch.cartesian_prod(line, line).expand(len(cells), -1, -1)
        return torch.cat([cells * self.scale, places], dim=2)
