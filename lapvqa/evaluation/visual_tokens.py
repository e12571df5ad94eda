"""Images as a head sees them: tokens of an encoder that is frozen, or trained with it (native)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from lapvqa import storage
from lapvqa.datasets.image_folder import Pixels
from lapvqa.datasets.stored import StoredImages
from lapvqa.evaluation.features import means_of_cells, open_store
from lapvqa.evaluation.image_encoder import ImageEncoder
from lapvqa.images.shards import ShardStore, verify_shards
from lapvqa.job import Job
from lapvqa.networks.device import Computer, open_computer
from lapvqa.networks.weights import serialise
from lapvqa.params import RecipeParams
from lapvqa.project import Project

TokenKind = Literal["pooled", "patches"]

ENCODER = "encoder.pt"
"""Beside the head of a native recipe: the encoder that was trained with it."""


@dataclass(frozen=True)
class NumberedImages:
    """Images by number: sha256 of the stored pixels, and how to read these, uint8 [k, 384, 384]."""

    digests: list[str]
    read: Callable[[Sequence[int]], Pixels]


class VisualTokens:
    """Images as tokens of one encoder.

    ``trained``: the encoder if gradients reach it, else None.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        of: Callable[[Sequence[int]], Tensor],
        computer: Computer,
        *,
        trained: bool,
    ) -> None:
        self.of, self.computer = of, computer
        self.width = encoder.width
        self.trained = encoder if trained else None

    def save_trained(self, folder: Path) -> None:
        """Write ``encoder.pt`` if gradients reached the encoder: its head needs these weights.

        A plain state dict under the names of the encoder's own library.
        """
        if self.trained is not None:
            weights = {
                name: tensor.detach().cpu() for name, tensor in self.trained.weights().items()
            }
            storage.write_bytes(folder / ENCODER, serialise(weights))


def open_visual_tokens(
    encoder: ImageEncoder,
    images: NumberedImages,
    kind: TokenKind,
    recipe: RecipeParams,
    *,
    job: Job,
    progress: Callable[[int, int], None],
) -> VisualTokens:
    """Return the images as tokens, [k, N, D] on the device for numbers of images.

    Of a frozen encoder all are computed here, once, and stored; if the head reads each but once,
    they are computed when it asks.
    """
    computer = open_computer(job)
    encoder.to(computer.device)

    def pixels(numbers: Sequence[int]) -> Tensor:
        return computer.put(images.read(numbers))

    def native(numbers: Sequence[int]) -> Tensor:
        tokens = encoder.patches(pixels(numbers)) if kind == "patches" else encoder(pixels(numbers))
        grid = recipe.token_grid
        return means_of_cells(tokens, grid) if grid else tokens.float()

    if recipe.encoder == "native":
        return VisualTokens(encoder, native, computer, trained=True)
    store = open_store(encoder, kind, job=job, grid=recipe.token_grid)
    if recipe.epochs == recipe.seeds == 1:
        return VisualTokens(
            encoder, lambda numbers: computer.put(store.encode(pixels(numbers))).float(),
            computer, trained=False,
        )  # fmt: skip
    store.fill(images.digests, images.read, progress=progress)

    def stored(numbers: Sequence[int]) -> Tensor:
        return computer.put(store.take([images.digests[number] for number in numbers])).float()

    return VisualTokens(encoder, stored, computer, trained=False)


def shard_images(
    digests: list[str], shards: Sequence[str], rows: Sequence[int], project: Project
) -> NumberedImages:
    """Return images of data/images by number: pixels' sha256, shard and row of each."""
    verify_shards(project.images_dir, set(shards))
    store = ShardStore(project.images_dir)

    def read(numbers: Sequence[int]) -> Pixels:
        return store.read([shards[number] for number in numbers],
                          [rows[number] for number in numbers])  # fmt: skip

    return NumberedImages(digests, read)


def stored_images(
    keys: Sequence[str], stored: StoredImages, project: Project
) -> tuple[NumberedImages, dict[str, int]]:
    """Return the archive's images of ``keys`` and the number of each key."""
    numbers = {key: number for number, key in enumerate(sorted(set(keys)))}
    places = [stored.rows[key] for key in numbers]
    images = shard_images(
        [stored.digest_of[key] for key in numbers],
        [place[5] for place in places],
        [place[6] for place in places],
        project,
    )
    return images, numbers
