"""An image encoder as the evaluations see it: stored pixels in, tokens out."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from lapvqa.images.transforms import to_input
from lapvqa.networks.encoder import VisionEncoder


class ImageEncoder(nn.Module):
    """An encoder with its own preprocessing. B images, N tokens, D = ``width``.

    ``about``: what it is, for the protocol of a result (library, architecture, image size).
    """

    width: int
    about: str

    @abstractmethod
    def forward(self, pixels: Tensor) -> Tensor:
        """Map stored images uint8 [B, 384, 384] to tokens [B, N, D]; their mean is the feature."""

    @abstractmethod
    def patches(self, pixels: Tensor) -> Tensor:
        """Map stored images uint8 [B, 384, 384] to tokens [B, G * G, D] that have a place, by rows.

        They cover the whole stored square.
        """

    def weights(self) -> dict[str, Tensor]:
        """Return the weights under the names of the encoder's own library."""
        return dict(self.state_dict())


class OwnEncoder(ImageEncoder):
    """The pipeline's encoder."""

    def __init__(self, encoder: VisionEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.width = encoder.width
        self.about = f"lapvqa VisionEncoder, {encoder.image_size} px"

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the pooled tokens."""
        tokens: Tensor = self.encoder(to_input(pixels, self.encoder.image_size))
        return tokens

    def patches(self, pixels: Tensor) -> Tensor:
        """Return the patch tokens before pooling."""
        return self.encoder.patch_tokens(to_input(pixels, self.encoder.image_size))

    def weights(self) -> dict[str, Tensor]:
        """Return the weights as encoder_final.pt has them."""
        return dict(self.encoder.state_dict())
